"""The pages of a list of jobs, by rank, whichever way the API sorts it.

A page's rank is the number of jobs in the list that are younger than its youngest.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

from convertly_source.client import REPORT, Answer, JobsClient
from convertly_source.errors import ResponseError
from convertly_source.results import Row, row

BEGINNING = datetime.min.replace(tzinfo=timezone.utc)
END = datetime.max.replace(tzinfo=timezone.utc)
SMALLEST_PAGE = 2  # pages overlap
SURE_OVERLAP = 2  # the youngest job read and the one before it, which is older
SURE_TOTAL = 19_000  # in longer lists the second one would cost more than three requests in all


class DisorderError(Exception):
    """The list is not sorted by `created_at`: there is no age to go by."""


@dataclass(frozen=True)
class Page:
    """Jobs that stand together in the list, oldest first, with their ages and their place."""

    rows: list[Row]
    ages: list[datetime | None]  # None where unknown; else, in a list without order, all the same
    rank: int
    total: int
    is_short: bool = False  # fewer jobs came than were asked for and are there

    @property
    def oldest(self) -> datetime | None:
        """The age of the oldest job, of those whose age is known."""
        return next(filter(None, self.ages), None)

    @property
    def youngest(self) -> datetime | None:
        """The age of the youngest job, of those whose age is known."""
        return next(filter(None, reversed(self.ages)), None)

    @property
    def end(self) -> int:
        """The rank after that of the oldest job."""
        return self.rank + len(self.rows)

    def begins_before(self, age: datetime) -> bool:
        """Whether every job of that age or younger stands on this page or after it."""
        return self.end >= self.total or (self.oldest or END) < age

    def shows(self, age: datetime) -> bool:
        """Whether every job of that age stands on this page."""
        return self.begins_before(age) and (self.rank == 0 or (self.youngest or BEGINNING) > age)

    def follows(self, page: "Page", age: datetime) -> bool:
        """Whether this page seems to stand right after `page`, whose youngest job has that age.

        The list is as long as it was, and where the pages overlap stands a job of that age at
        most, or the very same. Only seems: while one job was created and another one vanished,
        two jobs of one age may have changed places.
        """
        overlap = self.end - 1 - page.rank
        touches = (self.oldest or END) <= age or self.rows[overlap:][:1] == page.rows[-1:]
        return self.total == page.total and overlap >= 0 and touches


class Pages:
    """The pages of a list, from the newest (`first`, as it was at the start) to the oldest."""

    def __init__(
        self, client: JobsClient, page_size: int, max_connections: int, status: str | None = None
    ) -> None:
        self.size, self.overlap = page_size, 1
        self.total = self.end = 0  # jobs that there are said to be, and that pages have reached
        self.changes = 0  # times that the list was seen to have another length
        self.is_ordered = self._is_newest_first = True
        self._client, self._status = client, status
        self._threads = ThreadPoolExecutor(max_connections)
        self._ahead: deque[tuple[int, Future[Page]]] = deque()
        self._ahead_now, self._max_ahead = 1, max_connections
        self.first = self._newest()
        if self.total < SURE_TOTAL:
            self.overlap = min(SURE_OVERLAP, self.size - 1)

    def at(self, rank: int) -> Page:
        """Fetch the page of that rank."""
        return self._noted(self._fetch(rank))

    def after(self, page: Page) -> Page:
        """Fetch the page that is younger by all but the overlap, and have more fetched ahead."""
        if self._ahead and self._ahead[0][0] != self._rank_after(page.rank):
            self._drop_ahead()
        rank = self._ahead[-1][0] if self._ahead else page.rank
        while rank and len(self._ahead) < self._ahead_now:
            rank = self._rank_after(rank)
            self._ahead.append((rank, self._threads.submit(self._fetch, rank)))
        self._ahead_now = min(self._ahead_now + 1, self._max_ahead)
        return self._noted(self._ahead.popleft()[1].result())

    def overlap_more(self) -> None:
        """Let pages join although the list moves."""
        self.overlap = max(1, min(self.size // 10 + 1, self.size - 1))

    def without_order(self) -> None:
        """Go on without ages: from now on every job counts as being as old as every other."""
        self.is_ordered, self._is_newest_first = False, True
        self._drop_ahead()

    def contradiction(self, count: int) -> ResponseError:
        """Say that the list does not hold what it says."""
        return ResponseError(
            f"The API says {self.total} jobs, but only {count} different ones could be read.",
            REPORT,
        )

    def _newest(self) -> Page:
        """Fetch the newest page, and find out on the way how the list is sorted."""
        answer = self._client.page(0, self.size, self._status)
        self.end = came = len(answer.jobs)
        self._shrink(came, answer.total)
        ages = _ages(answer)
        if len(set(ages)) == 1 and came < answer.total:  # one age shows no direction
            ages += _ages(self._client.page(answer.total - came, self.size, self._status))
        self._is_newest_first = ages[:1] >= ages[-1:]
        try:
            first = self._page(answer)
            return first if self._is_newest_first else self._fetch(0)
        except DisorderError:
            self.without_order()
            return self._page(answer)

    def _rank_after(self, rank: int) -> int:
        return max(0, rank + self.overlap - self.size)

    def _drop_ahead(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
        self._ahead_now = 1

    def _fetch(self, rank: int) -> Page:
        offset, limit = rank, self.size
        if not self._is_newest_first:
            limit = max(1, min(limit, self.total - rank))
            offset = max(0, self.total - rank - limit)
        return self._page(self._client.page(offset, limit, self._status), limit)

    def _page(self, answer: Answer, limit: int = 0) -> Page:
        rows = [row(job) for job in answer.jobs]
        rank = answer.offset
        if self._is_newest_first:
            rows.reverse()
        else:
            rank = answer.total - answer.offset - len(rows)
        if len(rows) >= answer.total:  # the whole list: no need of an order
            rows.sort(key=lambda row: row.created_at or BEGINNING)
        ages = [
            (row.created_at if self.is_ordered else BEGINNING) if row.created_at else None
            for row in rows
        ]
        if any(older > younger for older, younger in pairwise(filter(None, ages))):
            raise DisorderError
        is_short = len(rows) < min(limit, answer.total - answer.offset)
        return Page(rows, ages, rank, answer.total, is_short)

    def _noted(self, page: Page) -> Page:
        """Note what a page tells of the whole list."""
        self.changes += page.total != self.total
        self.total = page.total
        self.end = max(self.end, page.end if page.rows else 0)
        if page.is_short:
            self._shrink(len(page.rows), page.total)
        return page

    def _shrink(self, came: int, total: int) -> None:
        """Ask for no more than what comes: the server may give less than it is asked for."""
        self.total = total
        if came < min(self.size, total):
            if came < SMALLEST_PAGE:
                raise self.contradiction(self.end)
            self.size, self.overlap = came, min(self.overlap, came - 1)
            self._drop_ahead()


def _ages(answer: Answer) -> list[datetime]:
    return [age for job in answer.jobs if (age := row(job).created_at)]
