"""The pages of the list of jobs, whichever way the API sorts it.

A job's position is the number of jobs in the list that are older: creations don't move it.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from convertly_source.api.client import JobsClient, JobsPage
from convertly_source.errors import (
    ConvertlyError,
    ResponseError,
    SettingsError,
    UnavailableError,
)
from convertly_source.reading.job import (
    BEGINNING,
    END,
    TICK,
    UNKNOWN,
    ListedJob,
    PositionedJob,
    keys_of,
    positioned,
    times_of,
)

SMALLEST_PAGE = 3  # pages overlap by two jobs
MAX_ATTEMPTS = 60  # for one page of a list that moves
OVERLAP_SHARE = 25  # pages fetched ahead may overlap by 1/25 of a page to make up for the drift


class DisorderError(SettingsError):
    """The list is not sorted by `created_at`, so a job can't be found by it."""

    def __init__(self) -> None:
        super().__init__(
            "The API lists jobs in no order, which makes it impossible to look them up by date.",
            "Use ordinary runs, which read all of them; a full refresh also finds what is gone.",
        )


class Page(NamedTuple):
    """One answer, and so one moment: jobs that stand together in the list, oldest first."""

    jobs: list[PositionedJob]
    position: int  # of the oldest
    is_oldest: bool  # no job in the list is older than these
    is_newest: bool  # no job in the list is younger

    @property
    def end(self) -> int:
        """The position after that of the youngest job."""
        return self.position + len(self.jobs)

    @property
    def oldest(self) -> datetime:
        """The first `created_at` that is known, else END."""
        return next((job.created_at for job in self.jobs if job.created_at > BEGINNING), END)

    @property
    def youngest(self) -> datetime:
        """The last `created_at`, BEGINNING without any."""
        return self.jobs[-1].created_at if self.jobs else BEGINNING

    @property
    def undated(self) -> int:
        """The number of jobs at its younger end that have no `created_at`."""
        return next((n for n, job in enumerate(reversed(self.jobs)) if job.job.created_at), 0)

    @property
    def shown_whole(self) -> tuple[datetime, datetime]:
        """The half-open range of which it shows all jobs; those of its ends may go on elsewhere."""
        since = BEGINNING if self.is_oldest or not self.jobs else self.oldest + TICK
        return since, END if self.is_newest or not self.jobs else self.youngest

    def begins_before(self, created_at: datetime) -> bool:
        """Whether no job of that time or younger stands before this page."""
        return self.is_oldest or self.oldest < created_at

    def overlaps(self, watermark: datetime) -> bool:
        """Whether it continues where all jobs older than `watermark` were handed over."""
        return self.begins_before(watermark) and (self.is_newest or self.youngest > watermark)

    def count_before(self, created_at: datetime) -> int:
        """Count the older jobs in the whole list; the page must begin before that time."""
        return self.position + sum(job.created_at < created_at for job in self.jobs)


class Pages:
    """Pages by position. `newest_page` is as it was at the start, when the list had `listed` jobs.

    The list ends where a page is shorter than requested and no job follows it; `total` only says
    where to look. A position becomes an offset when the request is sent. If `total` has shrunk
    since the position was seen, the position shrinks with it: old jobs may have been purged.
    """

    def __init__(self, client: JobsClient, page_size: int, max_connections: int) -> None:
        self.size = max(SMALLEST_PAGE, page_size)
        self.total = -1  # not known yet
        self.is_newest_first = True
        self.is_ordered = True
        self.is_static = True  # nothing has changed since the start
        self._claimed = 0  # the last `total` of the API
        self._only_times: set[datetime] | None = None  # of all jobs, if they show no order
        self._client, self._threads = client, ThreadPoolExecutor(max_connections)
        self._status: str | None = None
        self._depth = self._max_depth = max_connections + 2  # so that no connection waits
        self._joined, self._overlap = 0, 2
        self._drift = 0  # how many positions the list had moved by when the last answer came
        self.newest_page = self._newest()
        self.listed = self.total

    def at(self, position: int, size: int = 0) -> Page:
        """Fetch the page that begins there; a negative position makes the oldest page shorter."""
        for _ in range(MAX_ATTEMPTS):
            page = self._fetch(position - self._drift, size or self.size, self.total)
            if page.jobs or not self.total:
                return page
        raise self.failure()

    def search(self, created_at: datetime, position: int | None = None) -> Page:
        """Return a page on which the jobs of that time begin; `position` is where to look first.

        It bisects between two ends that each answer moves; from `position` on it gallops.
        """
        low, high, step = 0, self.total, self.size  # as many jobs are older, at least and at most
        if position is None:
            position = (high - self.size) // 2 if created_at > BEGINNING + TICK else -2
            step = high
        for _ in range(MAX_ATTEMPTS):
            page = self.at(max(-2, position))
            is_before = page.begins_before(created_at)
            if is_before and (page.is_newest or page.youngest >= created_at):
                return page
            if is_before:
                low = page.end - page.undated  # those may belong to a younger neighbour
                high = high if high >= low else self.total
            else:
                low, high = low if low <= page.position else 0, page.position
            middle = low - 1 if high - low <= self.size - 2 else (low + high - self.size) // 2
            near = low + step - self.size - 1 if is_before else high - step + 1
            position = min(middle, near) if is_before else max(middle, near)
            step *= 2
        raise self.failure()

    def check(self, count: int) -> None:
        """Raise `DisorderError` if a full read of `count` jobs has missed some, at rest."""
        if count < self.total and self.is_at_rest():
            oldest = self.at(-2)
            if self.is_at_rest() and count < self.total - oldest.position:
                raise DisorderError

    def after(self, page: Page) -> Generator[Page, None, None]:
        """Fetch the pages that follow, without end: some ahead, but not beyond the newest."""
        position, total, ahead = page.end - self._drift, self.total, deque[Future[Page]]()
        try:
            while True:
                depth = self._depth
                if self._drift:  # each request in flight shifts the next page by this much
                    depth = min(depth, 1 + self.size // OVERLAP_SHARE // self._drift)
                    self._overlap = max(self._overlap, 2 + self._drift * (depth - 1))
                while not ahead or (
                    len(ahead) < depth and position - 2 < self.newest_page.position
                ):
                    place = position - self._overlap
                    ahead.append(self._threads.submit(self._fetch, place, self.size, total))
                    position = place + self.size
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def list_of(self, status: str, total: int) -> "Pages":
        """Return the pages of the jobs in one status, which are about `total`; no request."""
        pages = copy(self)
        pages._status, pages.total, pages._drift = status, total, 0  # noqa: SLF001 - its own
        return pages

    @property
    def requests(self) -> int:
        """The number of requests that the client has sent."""
        return self._client.requests

    def in_status(self, status: str) -> Iterator[list[PositionedJob]]:
        """Yield the usable jobs in one status, by page; while they move, one may be missed."""
        offset, seen = 0, set[str]()
        while True:
            answer = self._client.page(offset, self.size, status)
            jobs = [ListedJob.parse(job) for job in answer.jobs]
            yield [
                PositionedJob(job.created_at, job.id, UNKNOWN, job)
                for job in jobs
                if job.id and job.created_at
            ]
            offset += len(jobs)
            if offset >= answer.total or seen >= keys_of(answer.jobs):
                return
            seen |= keys_of(answer.jobs)

    def is_at_rest(self) -> bool:
        """Whether nothing was created or has vanished since the start."""
        now = [job.created_at for job in self._fetch_newest().jobs] if self.is_static else []
        return self.is_static and now == [job.created_at for job in self.newest_page.jobs]

    def failure(self) -> ConvertlyError:
        """Return the reason why the list can't be read: it moves, or contradicts itself."""
        return self._contradiction() if self.is_at_rest() else _too_fast()

    def _contradiction(self) -> ResponseError:
        return ResponseError(f"The API says {self.total} jobs, but its pages hold others or fewer.")

    def _newest(self) -> Page:
        """Fetch the newest page; find out on the way how the list is sorted."""
        answer, is_end = self._ask(0, self.size)
        # `Date` has whole seconds.
        self.now = (answer.date or datetime.now(timezone.utc)) + timedelta(seconds=1)
        times = times_of(answer.jobs)
        if len(set(times)) == 1 and not is_end:
            times = self._two_times(times[0])
        if len(set(times)) <= 1:
            self._only_times = {*times}
        self.is_newest_first = times[:1] >= times[-1:]
        try:
            page = self._page(answer, is_end)
            return page if page.is_newest else self._fetch_newest()
        except DisorderError:
            self.is_ordered, self.is_newest_first = False, True
            return self._page(answer, is_end)

    def _two_times(self, first: datetime) -> list[datetime]:
        """Return the times of a page that shows the order, where the first page has one time only.

        If the last page has no other time either, there is no such page.
        """
        start, end = 0, max(0, self.total - self.size)
        offset = end
        for _ in range(MAX_ATTEMPTS):
            jobs = self._ask(offset, self.size)[0].jobs
            times = times_of(jobs)
            is_alike, is_last = times[:1] == [first], offset + len(jobs) >= self.total
            if len(set(times)) > 1 or (is_alike and is_last):
                return times
            start, end = (offset, end) if is_alike else (start, offset)
            offset = (start + end) // 2
            if offset == start or not times:  # the list has moved
                start, end = 0, max(0, self.total - self.size)
                offset = end
        raise self._contradiction() if self.is_static else _too_fast()

    def _fetch_newest(self) -> Page:
        """Fetch the newest page once the order is known; what comes after it is for later."""
        shorter = (0,) if self.is_newest_first else (2, self.size // 4, self.size // 2)
        for jobs in shorter:  # some may be created meanwhile
            page = self.at(self.total - self.size + jobs)
            if page.is_newest:
                break
        return page

    def _fetch(self, position: int, size: int, total: int) -> Page:
        """Fetch the page of a position that was seen when the list had `total` jobs."""
        position -= max(0, total - self.total)
        offset, limit = position, max(1, size + min(0, position))
        if self.is_newest_first:
            offset, limit = self.total - position - size, size
        return self._page(*self._ask(max(0, min(offset, self.total - 1)), limit))

    def _ask(self, offset: int, limit: int) -> tuple[JobsPage, bool]:
        """Return an answer with a `total` that fits it, and whether the list ends with it."""
        answer = self._client.page(offset, limit, self._status)
        count = len(answer.jobs)
        end = offset + count
        is_end = count < limit
        if is_end and count and end < answer.total:
            following, _, total, _ = self._client.page(end, limit, self._status)
            is_end = not following and total > end  # else the server gives less, or the list moved
            is_sure = not offset or min(limit, answer.total - offset) - count > SMALLEST_PAGE
            if is_sure and following:
                self.size = min(self.size, max(SMALLEST_PAGE, count))
        total = max(answer.total, end) if count else min(offset, answer.total)
        self.is_static &= self.total < 0 or answer.total == self._claimed
        moved = total - self.total if self.is_newest_first else self.total - total
        self._drift = max(0, min(moved, self.size)) if self.total >= 0 else 0
        self._claimed, self.total = answer.total, total
        return answer._replace(total=total), is_end

    def _page(self, answer: JobsPage, is_end: bool) -> Page:  # noqa: FBT001
        jobs = [ListedJob.parse(job) for job in answer.jobs]
        is_whole = is_end and answer.offset == 0
        times = [job.created_at for job in jobs if job.created_at]
        if self._only_times is not None and {*times} - self._only_times:
            raise _too_fast()  # in which order is not known
        position, is_oldest, is_newest = answer.offset, answer.offset == 0, is_end
        if self.is_newest_first:
            jobs.reverse()
            times.reverse()
            position = answer.total - answer.offset - len(jobs)
            is_oldest, is_newest = is_newest, is_oldest
        if is_whole:  # it needs no order
            jobs.sort(key=lambda job: job.created_at or END)
        elif self.is_ordered and (times != sorted(times) or (jobs and not times)):
            raise DisorderError
        first = BEGINNING + TICK if is_oldest else BEGINNING
        placed = positioned(jobs, position, first if self.is_ordered else None)
        return Page(placed, position, is_oldest, is_newest)


def _too_fast() -> UnavailableError:
    return UnavailableError(
        "The list of jobs moves faster than it can be read.",
        "Run again when fewer jobs are created or deleted: what was read is kept.",
    )
