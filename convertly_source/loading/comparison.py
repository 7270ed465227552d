"""Where the list and the warehouse differ: a comparison by counts, and by whole pages.

Positions are counted from the oldest job. So a page tells how many listed jobs are older, and the
warehouse how many it holds: where the counts differ, the page in the middle is fetched, and so on.
Each page is also compared job by job. Differences of opposite sign may cancel in a count, so pages
at random places cut the list first, and a look that has found something is followed by another.
"""

import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from convertly_source.api.client import OPEN_STATUSES
from convertly_source.loading.held import Difference, HeldJobs
from convertly_source.reading.job import BEGINNING, END, TICK, PositionedJob
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import Page, Pages

SAMPLES = 3  # pages at random places in a first look
MORE_SAMPLES = 8  # in a look after one that has found something; two more for each place
MAX_LOOKS = 4
FEW_REQUESTS = 12  # that a comparison may always take before it reads everything
STATUSES = (*OPEN_STATUSES, "failed", "completed")  # the shortest lists first


class Compared(NamedTuple):
    """A range of which all listed jobs are known, and how the warehouse differed there."""

    since: datetime
    before: datetime
    jobs_read: int
    difference: Difference | None


class Part(NamedTuple):
    """The jobs with `since` <= `created_at` < `before`: the positions from `start` to `end`."""

    since: datetime
    before: datetime
    start: int
    end: int


class EnoughError(Exception):
    """Reading everything takes fewer requests."""


class Comparison:
    """A comparison of `held_jobs`, which follow what it finds, with those that are listed.

    What a range is compared with was listed in one answer that showed an older job and a younger
    one beside it, or an end of the list; or in a group of one `created_at` that was read whole,
    twice. Positions of different moments only tell where to look.
    """

    def __init__(self, listing: Listing, held_jobs: HeldJobs) -> None:
        newest = listing.newest_page
        self.expected = 0  # jobs to read, if all are
        self._before = newest.youngest + TICK if newest.jobs else END
        self._listing, self._held_jobs = listing, held_jobs
        self._found = list[set[str]]()  # by a look: for each place the statuses that differed
        self._random = random.Random()  # noqa: S311 - which pages are compared is no secret

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs are listed, and held, up to the newest one at the start."""
        listed = self._listing.newest_page.count_before(self._before)
        return listed, self._held_jobs.count(BEGINNING, self._before)

    def differs_at_rest(self) -> bool:
        """Return whether the counts differ, of an account in which nothing happens."""
        listed, held = self.counts
        return listed != held and self._listing.is_at_rest()

    def ranges(self, *, read_all: bool) -> Iterator[Compared]:
        """Compare by counts and some pages, or all jobs if that takes fewer requests."""
        newest = self._listing.newest_page
        yield self._compare(*newest.shown_whole, newest.jobs)
        full_read = -(-newest.end // (self._listing.size - 2)) + 3
        self._most_requests = self._listing.requests + max(FEW_REQUESTS, full_read // 2)
        is_enough = newest.is_oldest and newest.is_newest
        if not (is_enough or read_all or full_read <= FEW_REQUESTS // 2):
            with suppress(EnoughError):
                yield from self._look_around()
                is_enough = not self.differs_at_rest()
        if not is_enough:
            yield from self._everything()

    def _look_around(self) -> Iterator[Compared]:
        """Look until a look finds nothing: what one finds may have hidden something else."""
        samples, touched = SAMPLES, set[str]()
        for _ in range(MAX_LOOKS):
            self._found.clear()
            yield from self._scan(None, samples)
            for status in STATUSES:
                yield from self._scan(status, samples if status in touched else 1)
            if not self._found:
                return
            samples = SAMPLES + MORE_SAMPLES + 2 * len(self._found)
            touched = set().union(*self._found)

    def _scan(self, status: str | None, samples: int) -> Iterator[Compared]:
        """Cut a list by pages at random places, then halve each part whose counts differ."""
        listed, held = self.counts
        pages: Pages = self._listing
        places = [(number + self._random.random()) / samples for number in range(samples)]
        if status:
            listed = self._held_jobs.count(BEGINNING, self._before, status)  # a guess
            pages = pages.list_of(status, listed)
        elif listed != held:
            places.insert(0, 0)  # if the oldest jobs were purged, the oldest page shows it
        parts = [Part(BEGINNING, self._before, 0, listed)]  # the youngest one is the last
        for position in [int(place * listed) for place in places]:
            if parts and parts[-1].start <= position < max(1, parts[-1].end):
                first = position - pages.size // 2
                parts += yield from self._cut(pages, status, parts.pop(), first)
        while parts:
            part = parts.pop()
            count = part.end - part.start
            if count != self._held_jobs.count(part.since, part.before, status):
                step = pages.size - 2
                middle = step * (max(0, -(-count // step)) // 2)
                parts += yield from self._cut(pages, status, part, part.start - 1 + middle)

    def _cut(
        self, pages: Pages, status: str | None, part: Part, position: int
    ) -> Generator[Compared, None, list[Part]]:
        """Compare the page at a position; return what is left of the part on both sides of it."""
        self._check_limit()
        page = pages.at(max(-1, position))
        if status and part.before == self._before:
            part = part._replace(end=pages.total)  # it was a guess
        since, before = page.shown_whole
        if max(since, part.since) < min(before, part.before):
            yield from self._statuses(page, status) if status else self._page(page)
            start, end = page.count_before(since), page.count_before(before)
        else:  # jobs of one `created_at` fill the page
            times = [t for t in (page.youngest, page.oldest) if part.since <= t < part.before]
            if not times:
                return []  # the list has moved
            since, before = times[0], times[0] + TICK
            start, end = (
                pages.search(time, self._guess(time, status)).count_before(time)
                for time in (since, before)
            )
            if end - start != self._held_jobs.count(since, before, status):
                yield from self._group(since)
        older = part._replace(before=since, end=start)
        younger = part._replace(since=before, start=end)
        return [side for side in (older, younger) if side.since < side.before]

    def _check_limit(self) -> None:
        if self._listing.requests >= self._most_requests:
            raise EnoughError

    def _guess(self, time: datetime, status: str | None = None) -> int:
        """Return the position of a page that should show the first jobs of a time."""
        held = self._held_jobs.count(BEGINNING, time, status)
        return max(-1, held - self._listing.size // 2)

    def _page(self, page: Page) -> Iterator[Compared]:
        """Compare what a page of the list of all jobs shows whole."""
        since, before = page.shown_whole
        yield self._compare(since, min(before, self._before), page.jobs)

    def _statuses(self, page: Page, status: str) -> Iterator[Compared]:
        """Look up what differs on a page of one status: the list of all jobs shows why."""
        since, before = page.shown_whole
        before = min(before, self._before)
        while time := self._held_jobs.first_difference(since, before, page.jobs, status):
            self._check_limit()
            found = self._listing.find(time, self._guess(time))
            if found.overlaps(time):
                yield from self._page(found)
                since = found.shown_whole[1]
            else:
                yield from self._group(time)
                since = time + TICK

    def _group(self, time: datetime) -> Iterator[Compared]:
        """Compare jobs of one `created_at` that fill a page: whole, and if they differ, twice."""
        group = dict[str, PositionedJob]()
        for _ in range(2):
            page = self._listing.search(time, self._guess(time))
            for jobs in self._listing.read(time, time, page):
                group |= {job.key: job for job in jobs if job.created_at == time}
            if not self._held_jobs.difference(time, time + TICK, group.values()):
                break
        yield self._compare(time, time + TICK, group.values())

    def _everything(self) -> Iterator[Compared]:
        """Read all jobs, and compare each page; groups that differ are read again."""
        self.expected = self._listing.listed
        since, waiting, groups = BEGINNING, list[PositionedJob](), set[datetime]()
        page = self._listing.search(BEGINNING)
        for jobs in self._listing.read(BEGINNING + TICK, self._before - TICK, page):
            waiting += jobs
            before = min(self._listing.watermark, self._before)
            if before == since:  # a group comes from several answers
                groups.add(since)
                continue
            if since in groups:
                if not self._held_jobs.difference(since, since + TICK, waiting):
                    groups.remove(since)
                since += TICK
            yield self._compare(since, before, waiting)
            since, waiting = before, [job for job in waiting if job.created_at >= before]
        for time in sorted(groups):
            yield from self._group(time)

    def _compare(
        self, since: datetime, before: datetime, jobs: Iterable[PositionedJob]
    ) -> Compared:
        """Compare a range with all jobs that are listed there, and hold those from now on."""
        jobs = list(jobs)
        found = self._held_jobs.difference(since, before, jobs)
        if found:
            self._held_jobs.replace(since, before, found.listed)
            if found.statuses:
                self._found.append(found.statuses)
        return Compared(since, before, len(jobs), found)
