"""The account as a sequence by age: found by age, read oldest first, exact while it moves.

The API gives pages by offset. Here a page is named by its rank, the number of jobs in the list
that are younger than its youngest: ranks grow with age, whichever way the API sorts.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

from convertly_source.client import REPORT, Answer, JobsClient
from convertly_source.errors import ResponseError
from convertly_source.results import Row, row

BEGINNING = datetime.min.replace(tzinfo=timezone.utc)
END = datetime.max.replace(tzinfo=timezone.utc)
PATIENCE = 30  # times that a place is looked for again without finding a new job there
SURE_OVERLAP = 2  # the youngest job read and the one before it, which is older
SURE_TOTAL = 19_000  # from here on, the second one would cost a full read more than 3 requests
SMALLEST_PAGE = 2  # pages overlap by a job
NOWHERE = 2**63  # a rank that no job has


class DisorderError(Exception):
    """The list is not sorted by `created_at`: there is no age to go by."""


@dataclass(frozen=True)
class Page:
    """Jobs that stand together in the list, oldest first, with their ages and their place."""

    rows: list[Row]
    ages: list[datetime | None]  # None: not usable. In a list without order all others are equal
    rank: int
    total: int
    is_short: bool = False  # fewer jobs came than were asked for and are there

    @property
    def oldest(self) -> datetime | None:
        """The age of the oldest usable job."""
        return next(filter(None, self.ages), None)

    @property
    def youngest(self) -> datetime | None:
        """The age of the youngest usable job."""
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


class Front:
    """How far a read has come: all jobs older than `age` are handed over, and some of that age.

    Jobs of one age stand in any order, another one in each answer. They are complete when as many
    were met as there are places for them, in a list that kept its length meanwhile.
    """

    def __init__(self, since: datetime, until: datetime) -> None:
        self.age = since
        self.count = 0  # jobs handed over
        self.is_short = False  # the last page ended the jobs of `age`, and some were not met
        self.is_crowded = False  # the last page had no younger job than those of `age`
        self._until = until
        self._handed: set[str | None] = set()
        self._unusable: set[int] = set()
        self._total = -1
        self.look_again()

    def look_again(self) -> None:
        """Forget where the last page was: the next one does not follow it."""
        self._places, self._edge = 0, NOWHERE

    def take(self, page: Page) -> list[Row]:
        """Move on over a page that joins; return its jobs that were not handed over before."""
        if page.total != self._total:
            self._met: set[str | None] = set()
            self._total = page.total
            self.look_again()
        batch: list[Row] = []
        younger: dict[str | None, tuple[datetime, Row]] = {}
        for place, (age, listed) in enumerate(zip(page.ages[::-1], page.rows[::-1]), page.rank):
            if age is None:
                batch += [listed] * (place not in self._unusable)
                self._unusable.add(place)
            elif age > self.age:
                younger.setdefault(listed.id, (age, listed))
            elif age == self.age:
                batch += [listed] * (listed.id not in self._handed)
                self._handed.add(listed.id)
                self._met.add(listed.id)
                self._places += place < self._edge
            elif place < self._edge < NOWHERE:
                raise DisorderError
        self.is_crowded = not younger
        self.is_short = (bool(younger) or page.rank == 0) and len(self._met) < self._places
        if younger and not self.is_short:
            jobs = list(younger.values())
            self.age = jobs[0][0]
            batch += [listed for age, listed in reversed(jobs) if age <= self._until]
            self._handed = {listed.id for age, listed in jobs if age == self.age}
            self._met, self._places = set(self._handed), page.ages.count(self.age)
        self._edge = page.rank
        self.count += len(batch)
        return batch


class Listing:
    """The jobs of an account, or those in one status, from the moment of its making on."""

    def __init__(
        self, client: JobsClient, page_size: int, max_connections: int, status: str | None = None
    ) -> None:
        self.expected = 0  # jobs to come, known once a read has begun
        self._client, self._status = client, status
        self._size, self._overlap, self._total = page_size, 1, 0
        self._threads = ThreadPoolExecutor(max_connections)
        self._max_ahead, self._ahead_now = max_connections, 1
        self._ahead: deque[tuple[int, Future[Page]]] = deque()
        self._begins: dict[int, datetime] = {}  # index of a page: where it began when last seen
        self.is_ordered = self._is_newest_first = True
        self._first = self._newest_page()
        self._start: Page | None = self._first  # as it was at the start: good for one look
        self._begins[0] = self._first.oldest or END
        if self._total < SURE_TOTAL:
            self._overlap = min(SURE_OVERLAP, self._size - 1)

    @property
    def newest(self) -> datetime | None:
        """The age of the newest job at the start; None without an order."""
        return self._first.youngest if self.is_ordered else None

    def without_order(self) -> None:
        """Go on without ages: from now on every job counts as being as old as every other."""
        self._is_newest_first, self.is_ordered, self._start = True, False, None
        self._drop_ahead()

    def search(self, age: datetime) -> list[Page]:
        """Look for the page from which on all jobs of that age and younger stand.

        It is the last of the returned pages; the others were looked at on the way. A gallop and
        a bisection: about twice the logarithm of the number of pages, less what is known already.
        """
        pages = [self._start] if self._start else []
        self._start = None
        for attempt in range(PATIENCE):
            if pages and pages[-1].begins_before(age):
                return pages
            # The list may have grown since its length was seen: ask for less than a page.
            pages += self._look_for(age, slack=self._size // 2 if attempt else 0)
        raise self._contradiction(self._end)

    def read(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """Hand over each job from `since` to `until`, both included, once, oldest first.

        After each batch all older jobs have been handed over: who stops there can go on there.
        Jobs that are not usable come where they stand.

        Raises `DisorderError` when the ages are in no order, and `ResponseError` when the list
        does not hold what it says.
        """
        page = self.search(since)[-1]
        is_full = page.oldest is None or page.oldest >= since
        self.expected = page.rank + sum(age is None or age >= since for age in page.ages)
        front, patience = Front(since, until), PATIENCE
        while True:
            if batch := front.take(page):
                patience = PATIENCE
                yield batch
            if not front.is_short and (page.rank == 0 or front.age > until):
                break
            following = None if front.is_short else self._following(page)
            if following is None or not self._joins(following, page, front):
                patience -= 1
                if not patience:
                    raise self._contradiction(front.count)
                front.look_again()
                following = self.search(front.age)[-1]
            if following.total != page.total:  # it moves: overlap more, so that pages join
                self._overlap = max(1, min(self._size // 10 + 1, self._size - 1))
            page = following
        if is_full and front.age <= until and front.count < page.total and self._is_at_rest(page):
            raise self._contradiction(front.count)

    def read_all(self) -> Iterator[list[Row]]:
        """Hand over every job, in order of age where there is one. A job may come twice."""
        try:
            yield from self.read(BEGINNING, END)
        except DisorderError:
            self.without_order()
            yield from self.read(BEGINNING, END)

    def _joins(self, following: Page, page: Page, front: Front) -> bool:
        """Whether no job can be missing between two pages: the younger one has an older job."""
        is_sure = following.begins_before(front.age)
        may_seem = front.is_crowded or self._overlap < SURE_OVERLAP
        return is_sure or (may_seem and following.follows(page, front.age))

    def _newest_page(self) -> Page:
        answer = self._client.page(0, self._size, self._status)
        self._end = len(answer.jobs)
        self._shrink(len(answer.jobs), answer.total)
        ages = _ages(answer)
        if len(set(ages)) == 1 and self._total > len(answer.jobs):  # one age shows no direction
            offset = self._total - len(answer.jobs)
            ages += _ages(self._client.page(offset, self._size, self._status))
        self._is_newest_first = ages[:1] >= ages[-1:]
        try:
            return self._page(answer) if self._is_newest_first else self._fetch(0)
        except DisorderError:
            self.without_order()
            return self._page(answer)

    def _look_for(self, age: datetime, slack: int) -> list[Page]:
        last, looked_at = max(0, (self._total - 1) // self._size), dict[int, Page]()

        def begins_before(index: int) -> bool:
            if index not in self._begins:
                looked_at[index] = self._checked(self._fetch(index * self._size))
                self._begins[index] = looked_at[index].oldest or END
            return self._begins[index] < age

        low = high = 0 if age > BEGINNING else last
        while high < last and not begins_before(high):
            low, high = high + 1, 2 * high or 1
        index = low + bisect_left(range(low, min(high, last)), True, key=begins_before)
        if index not in looked_at:
            far = max(0, self._total - self._size + slack)
            rank = far if index == last else index * self._size
            looked_at[index] = self._checked(self._fetch(rank))
        found = looked_at.pop(index)
        if not found.begins_before(age):
            self._begins.clear()
        return [*looked_at.values(), found]

    def _following(self, page: Page) -> Page:
        """Fetch the page that follows, younger by all but the overlap, and more of them ahead."""
        if self._ahead and self._ahead[0][0] != self._rank_after(page.rank):
            self._drop_ahead()
        rank = self._ahead[-1][0] if self._ahead else page.rank
        while rank and len(self._ahead) < self._ahead_now:
            rank = self._rank_after(rank)
            self._ahead.append((rank, self._threads.submit(self._fetch, rank)))
        self._ahead_now = min(self._ahead_now + 1, self._max_ahead)
        return self._checked(self._ahead.popleft()[1].result())

    def _rank_after(self, rank: int) -> int:
        return max(0, rank + self._overlap - self._size)

    def _drop_ahead(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
        self._ahead_now = 1

    def _fetch(self, rank: int) -> Page:
        offset, limit = rank, self._size
        if not self._is_newest_first:
            limit = max(1, min(limit, self._total - rank))
            offset = max(0, self._total - rank - limit)
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
            (row.created_at if self.is_ordered else BEGINNING) if row.is_usable else None
            for row in rows
        ]
        if any(older > younger for older, younger in pairwise(filter(None, ages))):
            raise DisorderError
        is_short = len(rows) < min(limit, answer.total - answer.offset)
        return Page(rows, ages, rank, answer.total, is_short)

    def _checked(self, page: Page) -> Page:
        """Note what a page tells of the whole list."""
        self._total = page.total
        self._end = max(self._end, page.end if page.rows else 0)
        if page.is_short:
            self._shrink(len(page.rows), page.total)
        return page

    def _shrink(self, came: int, total: int) -> None:
        """Ask for no more than what comes: the server may give less than it is asked for."""
        self._total = total
        if came < min(self._size, total):
            if came < SMALLEST_PAGE:
                raise self._contradiction(self._end)
            self._size, self._overlap = came, min(self._overlap, came - 1)
            self._begins.clear()
            self._drop_ahead()

    def _is_at_rest(self, page: Page) -> bool:
        now = self._fetch(0)
        is_same = not self.is_ordered or now.rows[-1:] == self._first.rows[-1:]
        return is_same and now.total == page.total == self._first.total

    def _contradiction(self, count: int) -> ResponseError:
        return ResponseError(
            f"The API says {self._total} jobs, but only {count} different ones could be read.",
            REPORT,
        )


def _ages(answer: Answer) -> list[datetime]:
    return [age for job in answer.jobs if (age := row(job).created_at)]
