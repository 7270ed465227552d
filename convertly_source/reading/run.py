"""Which jobs a run reads, and what it leaves to the next one."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import datetime, timedelta
from heapq import nlargest
from typing import NamedTuple, TypedDict

from dlt.common import logger

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES
from convertly_source.reading.job import (
    BEGINNING,
    END,
    LAG,
    NOT_HELD,
    TICK,
    UNKNOWN,
    ListedJob,
    PositionedJob,
    RemovedJob,
    clipped,
)
from convertly_source.reading.landmarks import (
    Landmark,
    add_landmark,
    check_account,
    once_known,
)
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import DisorderError

MINUTE = timedelta(minutes=1)
MAX_ENDED_JOBS = 1000  # that are remembered, as the next run reads them again

Window = tuple[datetime, datetime]  # half-open
TrackedJob = tuple[datetime, str, str, int]  # created_at, status, content hash, position

NEVER_SEEN: TrackedJob = (BEGINNING, "", "", UNKNOWN)


class RunState(TypedDict):
    """What a run leaves to the next one, in the state of the pipeline."""

    cursor: datetime | None  # every older job was handed over; it is never in the future
    start: datetime | None  # jobs that are older than that were left out, if any were
    held: int  # listed jobs older than `cursor - LAG` that need not be read again
    count_has_risen: bool  # there were more of them: the next run reads everything again
    tracked: dict[str, TrackedJob]  # unfinished, or ended and no older than `cursor - LAG`
    landmarks: list[Landmark]  # jobs by which the account is recognized
    jobs_read: int  # by a run that has not come to its end


def new_state() -> RunState:
    """Remember nothing."""
    return RunState(
        cursor=None,
        start=None,
        held=0,
        count_has_risen=False,
        tracked={},
        landmarks=[],
        jobs_read=0,
    )


class StoredJobs(NamedTuple):
    """Jobs that are in the tables, for a run whose state does not know them."""

    unfinished: Mapping[str, TrackedJob]
    landmarks: list[Landmark]


NOTHING_STORED = StoredJobs({}, [])


class Changes(NamedTuple):
    """What a run has found: jobs to load, jobs that can't be stored, or jobs that are gone.

    Only one of the three, since a load may end between two of them.
    """

    jobs: Sequence[ListedJob] = ()
    rejected: Sequence[PositionedJob] = ()
    removed: Sequence[RemovedJob] = ()
    jobs_read: int = 0


class IncrementalRun:
    """One run: the new jobs, then what became of the unfinished ones, then the count.

    Jobs are read oldest first, from `cursor - LAG` to the newest one at the start: what was handed
    over is a complete prefix of history. Older unfinished jobs are looked for in the lists of
    those, then by time. Where reading began, the list tells how many jobs are older: more than
    `held` if some have appeared later than LAG allows for.

    The state may not know all `stored` jobs: a load that was killed, or one of a window, leaves
    rows and no state.

    After each of the `changes`, `state` says what holds once those are loaded. Of the `listed`
    jobs of the list, `held` need not be read again; at rest, that is all of them.
    """

    def __init__(
        self,
        listing: Listing,
        status: str | None,
        state: RunState,
        window: Window,
        *,
        trust_account: bool = False,
        stored: StoredJobs = NOTHING_STORED,
    ) -> None:
        self.state = deepcopy(state)
        self.state["jobs_read"] = 0
        self.state["landmarks"] = state["landmarks"] or stored.landmarks
        self.listed, self.expected = listing.listed, 0  # `expected` jobs are to be read
        self._listing, self._status, self._trust_account = listing, status, trust_account
        self._start, self._until = max(window[0], BEGINNING + TICK), window[1] - TICK
        tracked = self.state["tracked"]
        for key, job in stored.unfinished.items():
            if self._start <= job[0] <= self._until and status in (None, job[1]):
                known = tracked.setdefault(key, job)
                if known[1] in FINAL_STATUSES:  # another load has seen it reopened
                    tracked[key] = job
        is_future = (state["cursor"] or BEGINNING) > listing.now + LAG  # a clock was wrong
        has_left_out = self._start < (state["start"] or BEGINNING)
        self._reads_again = state["count_has_risen"] or is_future or has_left_out
        if self._reads_again:
            self.state |= {"cursor": None, "held": 0, "count_has_risen": False}
        if self._start > self._horizon:  # older jobs may be left out
            self.state["start"] = self._start if self._start > BEGINNING + TICK else None
        self._held_before = self.state["held"]
        self._since = max(self._start, self._horizon)
        self._is_continued = self.state["cursor"] is not None and self._since == self._horizon
        self._counts = Counter[datetime]()  # of the jobs read that the next run reads again
        self._missing = {key: job for key, job in tracked.items() if job[1] not in FINAL_STATUSES}
        oldest = self._since if self._is_continued else BEGINNING
        missing = [(job[0], key) for key, job in self._missing.items() if job[0] >= oldest]
        self._to_pass = sorted(missing, reverse=True)  # the last one is the next to be passed
        self._removed = 0  # of those that `held` had
        self._late = 0  # jobs that are listed and still to be loaded
        self._handed_over = array("q")  # hashes of ids
        self.changes = self._find_changes()

    @property
    def held(self) -> int:
        """The number of jobs that were handed over, or are older than the window."""
        return self.state["held"] + self._counts.total() - self._late

    @property
    def open_jobs(self) -> int:
        """The number of jobs that had not ended."""
        statuses = [status for _, status, *_ in self.state["tracked"].values()]
        return sum(status not in FINAL_STATUSES for status in statuses)

    @property
    def _horizon(self) -> datetime:
        """The time from which on the next run reads again."""
        return max(self.state["cursor"] or BEGINNING, BEGINNING + LAG) - LAG

    def _find_changes(self) -> Iterator[Changes]:
        """Read; what is created from now on waits for the next run."""
        if self._listing.is_ordered:
            with suppress(DisorderError):
                yield from self._new_jobs()
                yield from self._unfinished()
                if self._is_continued:
                    self._compare()
                return
        yield from self._everything()

    def _new_jobs(self) -> Iterator[Changes]:
        """Read from where the last run ended, less LAG, to the newest job."""
        newest = page = self._listing.newest_page
        if not page.begins_before(self._since):
            position = self.state["held"] - 1 if self._is_continued else None
            page = self._listing.search(self._since, position)
        if not self._trust_account:
            check_account(self._listing, self.state["landmarks"], page)
        self._listed_before = page.count_before(self._since)
        if self._is_continued:
            self._move_positions(self.state["held"] - self._listed_before)
        elif self._since > BEGINNING + TICK or self._reads_again:
            # A first read checks `total`; read again, it may count what no page has.
            self.state["held"] = self._listed_before
        held = self.state["held"]
        self.expected = max(0, newest.end - self._listed_before)
        until = min(self._until, max(newest.youngest, self._since))
        for jobs in self._listing.read(self._since, until, page):
            due = [job for job in jobs if job.created_at <= until]
            yield from self._hand_over(due, is_prefix=True)
        if self._since == BEGINNING + TICK and until < self._until:
            self._listing.check(self.held - held)
        yield self._gone(self._since, until + TICK)

    def _unfinished(self) -> Iterator[Changes]:
        """Look for the older jobs that were unfinished: in the lists of those, then one by one."""
        for status in OPEN_STATUSES if self._missing else ():
            for jobs in self._listing.in_status(status):
                yield from self._hand_over([job for job in jobs if self._is_wanted(job)])
        moved, margin = 0, self._listing.size // 2
        missing = sorted(self._missing.items(), key=lambda job: job[1][0])
        for key, (created_at, _, _, position) in missing:
            if key in self._missing:
                place = None if position < 0 else position + moved - margin
                page = self._listing.search(created_at, place)
                for jobs in self._listing.read(created_at, created_at, page):
                    found = [job for job in jobs if job.key in self._missing]
                    for job in found:
                        before = self._missing[job.key][3]
                        moved = moved if before < 0 else job.position - before
                        margin = self._listing.size // 5  # where the next one is, is known better
                    yield from self._hand_over(found)
                yield self._gone(BEGINNING, self._listing.watermark)

    def _everything(self) -> Iterator[Changes]:
        """Read the whole list, which has no order; the next run looks afresh whether it has."""
        logger.warning("The API lists jobs in no order of created_at: this run reads all of them.")
        batches = self._listing.everything()
        ended = {key for key, job in self.state["tracked"].items() if job[1] in FINAL_STATUSES}
        known = ended.union(key for _, key in self.state["landmarks"])
        if known and not self._trust_account:
            batches = once_known(batches, known)
        self.state |= {"cursor": None, "held": 0}
        self._is_continued = False
        self._counts.clear()
        handed_over = set(self._handed_over)
        for jobs in batches:
            self._counts[BEGINNING] += len(jobs)
            rest = [job for job in jobs if hash(job.job.id) not in handed_over]
            yield from self._hand_over([job for job in rest if self._is_due(job)])
        yield self._gone(BEGINNING, END)

    def _compare(self) -> None:
        """Compare the number of jobs that are older than the range with those that were held."""
        held, listed = self._held_before - self._removed, self._listed_before
        if listed > held:  # some may have vanished since then
            page = self._listing.search(self._since, listed - 1)
            listed = max(held, page.count_before(self._since))
        self.state["held"] += listed - held
        self._late = max(0, listed - held)
        if self._late:
            self.state["count_has_risen"] = True
            logger.warning(
                f"{self._late} jobs have appeared more than {LAG // MINUTE} minutes after they "
                "were created: they are still to be loaded."
            )

    def _is_due(self, listed: PositionedJob) -> bool:
        """Whether a job of a list without an order is in the range, or was looked for."""
        time = clipped(listed.job.created_at or self._start)
        return self._start <= time <= self._until or listed.key in self._missing

    def _is_wanted(self, listed: PositionedJob) -> bool:
        """Whether a job in a list of unfinished ones was looked for, or is reopened."""
        is_older = self._start <= listed.created_at < self._since
        is_new = is_older and listed.key not in self.state["tracked"]
        return is_new or listed.key in self._missing

    def _hand_over(
        self, jobs: list[PositionedJob], *, is_prefix: bool = False
    ) -> Iterator[Changes]:
        """Yield what has changed, and remember what later runs will see again."""
        if rejected := [job for job in jobs if not job.job.is_usable]:
            yield Changes(rejected=rejected)
        if is_prefix:
            times = [job.created_at for job in jobs]
            self._counts.update(times)
            self._advance(times)
        changed = list[ListedJob]()
        for listed in jobs:
            if listed.is_duplicate:
                logger.warning(f"The API lists job {listed.job.id} twice: the younger one counts.")
            elif listed.job.is_usable:
                if self._is_changed(listed.job):
                    changed.append(listed.job)
                self._track(listed)
        if is_prefix and changed:  # a run without news leaves the state as it is
            self.state["landmarks"] = add_landmark(self.state["landmarks"], jobs)
        self._handed_over.extend(hash(job.id) for job in changed)
        if jobs:  # a page of a group may show none for the first time
            self._forget_ended()
        self.state["jobs_read"] += len(jobs)
        yield Changes(changed, jobs_read=len(jobs))

    def _advance(self, times: list[datetime]) -> None:
        """Move the cursor on, but not to times in the future, and `held` with it."""
        times = [time for time in times if BEGINNING + TICK < time <= self._listing.now]
        if times:  # the run began LAG before the cursor
            self.state["cursor"] = max(*times, self.state["cursor"] or BEGINNING)
        for time in [time for time in self._counts if time < self._horizon]:
            self.state["held"] += self._counts.pop(time)
        while self._to_pass and self._to_pass[-1][0] < self._horizon:
            _, key = self._to_pass.pop()
            if key in self._missing:  # a run that is killed leaves it to the next one
                self._place(key, NOT_HELD)

    def _is_changed(self, job: ListedJob) -> bool:
        """Whether a job is to be loaded: it is not as it was when last handed over."""
        _, status, content, _ = self.state["tracked"].get(job.id or "", NEVER_SEEN)
        is_same = job.status == status if job.is_final else job.content_hash == content
        return not is_same and self._status in (None, status, job.status)

    def _track(self, listed: PositionedJob) -> None:
        """Remember a job that is unfinished, or that the next run will read again."""
        job, key = listed.job, listed.key
        self._missing.pop(key, None)
        position = self.state["tracked"].pop(key, NEVER_SEEN)[3]
        created_at = clipped(job.created_at or listed.created_at)  # its own, in any order
        if not job.is_final or created_at >= self._horizon:
            content = "" if job.is_final else job.content_hash
            # Where jobs of one time change places, where it stood is as good as where it stands.
            position = listed.position if position < 0 else position
            self.state["tracked"][key] = created_at, job.status, content, position

    def _forget_ended(self) -> None:
        """Forget ended jobs that the next run will not read again, or that are too many."""
        tracked, horizon = self.state["tracked"], self._horizon
        ended = [(job[0], key) for key, job in tracked.items() if job[1] in FINAL_STATUSES]
        kept = [job for job in ended if job[0] >= horizon]
        if len(kept) > MAX_ENDED_JOBS:
            kept = nlargest(MAX_ENDED_JOBS, kept)
        if len(kept) < len(ended):
            for _, key in {*ended} - {*kept}:
                del tracked[key]

    def _gone(self, since: datetime, before: datetime) -> Changes:
        """Record unfinished jobs of some time that are no longer listed; track them no longer."""
        removed = list[RemovedJob]()
        for key, (created_at, status, _, position) in list(self._missing.items()):
            if since <= created_at < before:
                del self._missing[key], self.state["tracked"][key]
                is_older = self._is_continued and created_at < self._since
                was_held = is_older and position != NOT_HELD
                self._removed += was_held
                self.state["held"] -= was_held
                if self._status in (None, status):
                    removed.append(RemovedJob(key, created_at, status))
        return Changes(removed=removed)

    def _move_positions(self, lost: int) -> None:
        """Follow the positions of unfinished jobs when as many older ones have vanished."""
        for key, (*_, position) in self._missing.items() if lost > 0 else ():
            if position >= 0:
                self._place(key, max(0, position - lost))

    def _place(self, key: str, position: int) -> None:
        created_at, status, content, _ = self._missing[key]
        self._missing[key] = self.state["tracked"][key] = created_at, status, content, position
