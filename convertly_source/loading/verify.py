"""Verify: a run that finds where the warehouse and the list differ, and loads what is listed.

Positions are counted from the oldest job. So a page tells how many listed jobs are older, and the
warehouse how many it holds: where the counts differ, the page in the middle is fetched, and so on.
Each page is also compared job by job. Differences of opposite sign may cancel in a count, so pages
at random places cut the list first, and a look that has found something is followed by another.

What is recorded as removed was absent from one answer that showed an older job and a younger one
beside it, or an end of the list; or from a group of one `created_at` that was read whole, twice.
Positions of different moments only tell where to look.
"""

import random
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from convertly_source.api.client import OPEN_STATUSES, REPORT
from convertly_source.errors import ResponseError, SettingsError
from convertly_source.loading.held import HeldJob, HeldJobs
from convertly_source.reading.job import BEGINNING, END, TICK, Listed, RemovedJob
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import DisorderError, Page, Pages
from convertly_source.reading.run import Changes, IncrementalRun, RunState, Window
from convertly_source.tables.records import fingerprint

SAMPLES = 3  # pages at random places in a first look
MORE_SAMPLES = 8  # in a look after one that has found something; two more for each place
MAX_LOOKS = 4
FEW_REQUESTS = 12  # so many at least, before everything is read instead
STATUSES = (*OPEN_STATUSES, "failed", "completed")  # the shortest lists first


class VerifyResult(NamedTuple):
    """How an account and the tables compare, up to the newest job when it began."""

    listed: int  # jobs of the account
    held: int  # jobs in the tables, after what differed was loaded
    loaded: int  # jobs that were missing or different, and are loaded again
    removed: int  # jobs that were no longer listed
    requests: int


class Store(Protocol):
    """The tables of a warehouse, without the jobs that they know as removed."""

    def jobs(self, since: datetime, before: datetime) -> Iterable[HeldJob]:
        """Return the jobs of a range."""

    def rejected_jobs(self, since: datetime, before: datetime) -> Iterable[HeldJob]:
        """Return the jobs of a range that can't be stored."""


class Part(NamedTuple):
    """The jobs with `since` <= `created_at` < `before`: the positions from `start` to `end`."""

    since: datetime
    before: datetime
    start: int
    end: int


class EnoughError(Exception):
    """Reading everything takes fewer requests."""


class VerifyRun(IncrementalRun):
    """An ordinary run, then a comparison of all jobs that are held with all that are listed.

    Jobs that are missing or differ are handed over again, those that are gone as removed.
    `held_jobs` is what the warehouse holds once the changes so far are loaded; `store` finds the
    rows of those that are gone.
    """

    def __init__(
        self,
        listing: Listing,
        status: str | None,
        state: RunState,
        window: Window,
        *,
        held_jobs: HeldJobs,
        store: Store,
        read_all: bool,
        trust_account: bool = False,
    ) -> None:
        state = state | {"count_has_risen": False}
        super().__init__(listing, status, state, window, trust_account=trust_account)
        self.loaded_again, self.found_removed = 0, 0
        self.no_longer_rejected = set[str]()  # fingerprints
        self._held_jobs, self._store, self._read_all = held_jobs, store, read_all
        self._random = random.Random()  # noqa: S311 - which pages are compared is no secret
        self._loaded = set[int]()  # hashes of ids
        self._found, self._touched = 0, set[str]()  # places and statuses, by a look

    def result(self) -> VerifyResult:
        """Return what was found."""
        listed, held = self.compared
        requests = self._listing.requests
        return VerifyResult(listed, held, self.loaded_again, self.found_removed, requests)

    def check(self) -> None:
        """Raise `ResponseError` if the account is at rest, and still differs."""
        if self._differs_at_rest():
            listed, held = self.compared
            raise ResponseError(
                f"The API says that there are {listed:,} jobs, and lists {held:,}.", REPORT
            )

    def _all(self) -> Iterator[Changes]:
        """Run as usual, then compare; jobs that are created from now on wait for the next run."""
        for changes in super()._all():
            self._held_jobs.follow(changes)
            yield changes
        newest = self._listing.newest_page
        self._before = newest.youngest + TICK if newest.jobs else END
        self._loaded.update(self._handed_over)
        try:
            yield from self._compare_page(newest)
            if not (newest.is_oldest and newest.is_newest):
                yield from self._compare_lists()
        except DisorderError as error:
            raise no_order() from error
        self._forget_ended()
        self.state["count_has_risen"] = False
        listed, held = self.compared
        self._late = listed - held

    def _compare_lists(self) -> Iterator[Changes]:
        """Compare by counts and some pages, or all jobs if that takes fewer requests."""
        full_read = -(-self._listing.newest_page.end // (self._listing.size - 2)) + 3
        self._most_requests = self._listing.requests + max(FEW_REQUESTS, full_read // 2)
        if self._read_all or full_read <= FEW_REQUESTS // 2:
            yield from self._compare_everything()
            return
        try:
            yield from self._look_around()
            is_enough = not self._differs_at_rest()
        except EnoughError:
            is_enough = False
        if not is_enough:
            yield from self._compare_everything()

    def _everything(self) -> Iterator[Changes]:
        raise no_order()

    @property
    def compared(self) -> tuple[int, int]:
        """How many jobs are listed, and held, up to the newest one at the start."""
        listed = self._listing.newest_page.count_before(self._before)
        return listed, self._held_jobs.count(BEGINNING, self._before)

    def _differs_at_rest(self) -> bool:
        listed, held = self.compared
        return listed != held and self._listing.is_at_rest()

    def _look_around(self) -> Iterator[Changes]:
        """Look until a look finds nothing: what one finds may have hidden something else."""
        samples, touched = SAMPLES, set[str]()
        for _ in range(MAX_LOOKS):
            self._found, self._touched = 0, set()
            yield from self._scan(None, samples)
            for status in STATUSES:
                yield from self._scan(status, samples if status in touched else 1)
            if not self._found:
                return
            samples, touched = SAMPLES + MORE_SAMPLES + 2 * self._found, self._touched

    def _scan(self, status: str | None, samples: int) -> Iterator[Changes]:
        """Cut a list by pages at random places, then halve each part whose counts differ."""
        pages: Pages = self._listing
        parts = [Part(BEGINNING, self._before, 0, self.compared[0])]
        if status:
            count = self._held_jobs.count(BEGINNING, self._before, status)
            pages, parts = pages.list_of(status, count), [parts[0]._replace(end=count)]
        count = parts[0].end
        places = [(number + self._random.random()) / samples for number in range(samples)]
        if not status and self._differs(parts[0], status):
            places.insert(0, 0)  # if the oldest jobs were purged, the oldest page shows it
        for position in [int(place * count) for place in places]:
            for part in parts:
                if part.start <= position < part.end or not count:
                    parts.remove(part)
                    first = max(-1, position - pages.size // 2)
                    parts += yield from self._cut(pages, status, part, first)
                    break
        while parts:
            part = parts.pop()
            if self._differs(part, status):
                step = pages.size - 2
                middle = step * (max(0, -(-(part.end - part.start) // step)) // 2)
                parts += yield from self._cut(pages, status, part, part.start - 1 + middle)

    def _differs(self, part: Part, status: str | None) -> bool:
        held = self._held_jobs.count(part.since, part.before, status)
        return held != part.end - part.start

    def _cut(
        self, pages: Pages, status: str | None, part: Part, position: int
    ) -> Generator[Changes, None, list[Part]]:
        """Compare the page at a position; return what is left of the part on both sides of it."""
        self._check_limit()
        page = pages.at(position)
        if status and part[:2] == (BEGINNING, self._before):
            part = part._replace(end=pages.total)  # it was a guess
        since, before = _shown_whole(page)
        if max(since, part.since) < min(before, part.before):
            yield from self._compare_page(page, status)
            start, end = page.count_before(since), page.count_before(before)
        else:  # jobs of one `created_at` fill the page
            times = [t for t in (page.youngest, page.oldest) if part.since <= t < part.before]
            if not times:
                return []  # the list has moved
            since, before = times[0], times[0] + TICK
            start = self._count_before(pages, status, part, since)
            end = self._count_before(pages, status, part, before)
            if end - start != self._held_jobs.count(since, before, status):
                yield from self._compare_group(since)
        older = part._replace(before=since, end=start)
        younger = part._replace(since=before, start=end)
        return [side for side in (older, younger) if side.since < side.before]

    def _count_before(self, pages: Pages, status: str | None, part: Part, time: datetime) -> int:
        """Count the listed jobs that are older; the warehouse tells where to look."""
        held = self._held_jobs.count(part.since, time, status)
        return pages.search(time, part.start + held - pages.size // 2).count_before(time)

    def _check_limit(self) -> None:
        if self._listing.requests >= self._most_requests:
            raise EnoughError

    def _compare_page(self, page: Page, status: str | None = None) -> Iterator[Changes]:
        """Compare what a page shows whole. What differs in a list of one status is looked up."""
        yield Changes(jobs_read=len(page.jobs))
        since, before = _shown_whole(page)
        if page is not self._listing.newest_page:
            before = min(before, self._before)
        if not status:
            yield from self._mend(since, before, page.jobs)
            return
        while time := self._held_jobs.first_difference(since, before, page.jobs, status):
            since = yield from self._look_up(time)

    def _look_up(self, time: datetime) -> Generator[Changes, None, datetime]:
        """Compare the jobs of a time in the list of all; return up to when all was compared."""
        self._check_limit()
        page = self._listing.find(time, self._guess(time))
        if page.overlaps(time):
            yield from self._compare_page(page)
            return _shown_whole(page)[1]
        yield from self._compare_group(time)
        return time + TICK

    def _guess(self, time: datetime) -> int:
        """Return the position of a page that should show the first jobs of a time."""
        position = self._held_jobs.count(BEGINNING, time)
        return max(-1, position - self._listing.size // 2)

    def _compare_group(self, time: datetime) -> Iterator[Changes]:
        """Compare jobs of one `created_at` that fill a page: whole, and if they differ, twice."""
        group = dict[str, Listed]()
        for _ in range(2):
            page = self._listing.search(time, self._guess(time))
            for jobs in self._listing.read(time, time, page):
                group |= {job.key: job for job in jobs if job.created_at == time}
                yield Changes(jobs_read=len(jobs))
            if not self._held_jobs.difference(time, time + TICK, group.values()):
                return
        yield from self._mend(time, time + TICK, group.values())

    def _compare_everything(self) -> Iterator[Changes]:
        """Read all jobs, and compare each page; groups that differ are read again."""
        self.expected = self._listing.listed
        since, waiting, is_group, groups = BEGINNING, list[Listed](), False, list[datetime]()
        page = self._listing.search(BEGINNING)
        for jobs in self._listing.read(BEGINNING + TICK, self._before - TICK, page):
            yield Changes(jobs_read=len(jobs))
            waiting += jobs
            before = min(self._listing.watermark, self._before)
            if before == since:  # a group comes from several answers
                is_group = True
                continue
            if is_group:
                if self._held_jobs.difference(since, since + TICK, waiting):
                    groups.append(since)
                since, is_group = since + TICK, False
            yield from self._mend(since, before, waiting)
            since, waiting = before, [job for job in waiting if job.created_at >= before]
        for time in groups:
            yield from self._compare_group(time)

    def _mend(self, since: datetime, before: datetime, jobs: Iterable[Listed]) -> Iterator[Changes]:
        """Hand over what differs in a range; `jobs` are all that is listed there."""
        found = self._held_jobs.difference(since, before, jobs)
        if not found:
            return
        self._held_jobs.replace(since, before, found.listed)
        self._found += bool(found.statuses)
        self._touched |= found.statuses
        rejected = [job for job in found.different if not job.job.is_usable]
        usable = [job for job in found.different if job.job.is_usable]
        self.no_longer_rejected -= {fingerprint(job.job.raw) for job in rejected}
        yield Changes(rejected=rejected)
        once = [job for job in usable if hash(job.key) not in self._loaded]
        for job in once:
            self._track(job)
            self._loaded.add(hash(job.key))
        self.loaded_again += len(once)
        yield Changes([job.job for job in once])
        if gone := found.gone - self._loaded:  # this answer may be older than the one that had them
            yield from self._remove(since, before, gone)

    def _remove(self, since: datetime, before: datetime, gone: set[int]) -> Iterator[Changes]:
        """Hand over as removed those jobs of a range whose keys have these hashes."""
        jobs = [job for job in self._store.jobs(since, before) if hash(job.key) in gone]
        for job in jobs:
            self.state["tracked"].pop(job.key, None)
        self.found_removed += len(jobs)
        yield Changes(removed=[RemovedJob(job.key, job.created_at, job.status) for job in jobs])
        rejected = self._store.rejected_jobs(since, before)
        self.no_longer_rejected |= {job.key for job in rejected if hash(job.key) in gone}


def _shown_whole(page: Page) -> tuple[datetime, datetime]:
    """Return the range of which a page shows all jobs; older ones may be as old as its oldest."""
    is_empty = not page.jobs  # and so is the list
    since = BEGINNING if page.is_oldest or is_empty else page.oldest + TICK
    return since, END if page.is_newest or is_empty else page.youngest


def no_order() -> SettingsError:
    """Return the error for a list that can't be compared by positions."""
    return SettingsError(
        "The API lists jobs in no order, so they can't be compared by their positions.",
        "Ordinary loads read all of them each time; a full refresh also finds what is gone.",
    )
