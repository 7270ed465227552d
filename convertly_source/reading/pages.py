"""The pages of the list of jobs, by rank, whichever way the API sorts it.

A page's rank is the number of jobs in the list that are younger than its youngest.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from typing import NamedTuple

from convertly_source.api.client import REPORT, JobsClient, JobsPage
from convertly_source.errors import ResponseError
from convertly_source.reading.job import ListedJob

BEGINNING = datetime.min.replace(tzinfo=timezone.utc)
END = datetime.max.replace(tzinfo=timezone.utc)
SMALLEST_PAGE = 2  # pages overlap
SURE_TOTAL = 19_000  # in longer lists an overlap of two would cost more than three requests in all


class DisorderError(Exception):
    """The list is not sorted by `created_at`: there is no age to go by."""


class Listed(NamedTuple):
    """A job as it stands in the list."""

    age: datetime  # if unknown, that of its older neighbour; without an order, BEGINNING for all
    key: str  # its id, or its content and a number
    row: ListedJob


class Page(NamedTuple):
    """Jobs that stand together in the list, oldest first, and where."""

    jobs: list[Listed]
    rank: int
    total: int

    @property
    def end(self) -> int:
        """The rank after that of the oldest job."""
        return self.rank + len(self.jobs)

    @property
    def oldest(self) -> datetime:
        """The first age that is known."""
        return next((job.age for job in self.jobs if job.age > BEGINNING), END)

    @property
    def youngest(self) -> datetime:
        """The age of the last job."""
        return self.jobs[-1].age if self.jobs else BEGINNING

    def begins_before(self, age: datetime) -> bool:
        """Whether every job of that age or younger stands on this page or after it."""
        return self.end >= self.total or self.oldest < age

    def from_age(self, since: datetime) -> "Page":
        """Count jobs of an unknown age as of that age, where they follow the last older job."""
        jobs = list(self.jobs)
        for place, job in reversed(list(enumerate(jobs))):
            if job.age < since:
                if job.row.created_at:
                    break
                jobs[place] = job._replace(age=since)
        return self._replace(jobs=jobs)

    def places(self, age: datetime) -> int:
        """Count the places that jobs of that age take."""
        return sum(job.age == age for job in self.jobs)


class Pages:
    """The pages of the list, from the newest (`first`, as it was at the start) to the oldest."""

    def __init__(self, client: JobsClient, page_size: int, max_connections: int) -> None:
        self.size, self.is_ordered = max(SMALLEST_PAGE, page_size), True
        self.is_newest_first = True
        self.reach = 0  # the highest rank after a job
        self._client, self._max_ahead = client, 2 * max_connections  # so that none waits for a page
        self._threads = ThreadPoolExecutor(max_connections)
        self.first = self._newest()
        self._overlap = 2 if self.total < SURE_TOTAL else 1
        self._noted(self.first)

    @property
    def overlap(self) -> int:
        """How many jobs a page has that stand on the one before it."""
        return min(self._overlap, self.size - 1)

    def at(self, rank: int) -> Page:
        """Fetch the page of that rank."""
        return self._noted(self._fetch(rank))

    def after(self, page: Page, *, at_once: bool = False) -> Iterator[Page]:
        """Fetch the pages that follow, towards the newest: some ahead, one more each time.

        With `at_once`, as many from the first on: if all of them are wanted.
        """
        rank, most = page.rank, self._max_ahead if at_once else 1
        ahead = deque[Future[Page]]()
        while rank > 0 or ahead:
            while rank > 0 and len(ahead) < most:
                rank = max(0, rank + self.overlap - self.size)
                ahead.append(self._threads.submit(self._fetch, rank))
            most = min(most + 1, self._max_ahead)
            yield self._noted(ahead.popleft().result())

    def in_status(self, status: str) -> Iterator[list[ListedJob]]:
        """Hand over the jobs in one status, page by page; while they move, one may be missed."""
        offset, seen = 0, set[str | None]()
        while True:
            answer = self._client.page(offset, self.size, status)
            rows = [ListedJob.parse(job) for job in answer.jobs]
            yield rows
            offset += len(rows)
            if offset >= answer.total or seen.issuperset(row.id for row in rows):
                return
            seen.update(row.id for row in rows)

    def without_order(self) -> None:
        """Go on without ages: from now on every job counts as being as old as every other."""
        self.is_ordered, self.is_newest_first = False, True

    def _newest(self) -> Page:
        """Fetch the newest page, and find out on the way how the list is sorted."""
        answer = self._ask(0, self.size)
        self.total = answer.total
        ages = _ages(answer)
        if len(set(ages)) == 1 and len(answer.jobs) < self.total:  # one age shows no direction
            ages += _ages(self._ask(self.total - self.size, self.size))
        self.is_newest_first = ages[:1] >= ages[-1:]
        try:
            page = self._page(answer)
            return page if page.rank == 0 else self._fetch(0)
        except DisorderError:
            self.without_order()
            return self._page(answer)

    def _fetch(self, rank: int) -> Page:
        offset, limit = rank, self.size
        if not self.is_newest_first:
            limit = max(1, min(limit, self.total - rank))
            offset = max(0, self.total - rank - limit)
        return self._page(self._ask(offset, limit))

    def _ask(self, offset: int, limit: int) -> JobsPage:
        answer = self._client.page(offset, limit)
        came = len(answer.jobs)
        if came < min(limit, answer.total - offset):  # the server gives less than it is asked for
            if came < SMALLEST_PAGE:
                raise contradiction(answer.total, max(self.reach, came))
            self.size = min(self.size, came)
        return answer

    def _page(self, answer: JobsPage) -> Page:
        rows, rank = [ListedJob.parse(job) for job in answer.jobs], answer.offset
        if self.is_newest_first:
            rows.reverse()
        else:
            rank = answer.total - answer.offset - len(rows)
        is_whole = len(rows) >= answer.total
        if is_whole:  # no need of an order
            rows.sort(key=lambda row: row.created_at or END)
        known = [row.created_at for row in rows if row.created_at]
        if self.is_ordered and (known != sorted(known) or not (known or is_whole)):
            raise DisorderError
        age = BEGINNING if known or not self.is_ordered else END
        jobs, alike = list[Listed](), Counter[str]()
        for listed in rows:
            if self.is_ordered:
                age = listed.created_at or age
            key = listed.id
            if not key:
                content = listed.content_hash
                alike[content] += 1
                key = f"{content} {alike[content]}"
            jobs.append(Listed(age, key, listed))
        return Page(jobs, rank, answer.total)

    def _noted(self, page: Page) -> Page:
        """Note what a page tells of the whole list."""
        if page.jobs:
            self.reach = max(self.reach, page.end)
        if page.total != self.total:  # it moves: let pages join all the same
            self.total, self._overlap = page.total, max(self._overlap, self.size // 10 + 1)
        return page


def contradiction(total: int, count: int) -> ResponseError:
    """Say that the list does not hold what it says."""
    return ResponseError(
        f"The API says {total} jobs, but only {count} different ones could be read.", REPORT
    )


def _ages(answer: JobsPage) -> list[datetime]:
    return [age for job in answer.jobs if (age := ListedJob.parse(job).created_at)]
