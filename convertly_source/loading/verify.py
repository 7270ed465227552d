"""Verify: a run that compares what the warehouse holds with the list, and loads what is listed."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from convertly_source.errors import ResponseError
from convertly_source.loading.comparison import Compared, Comparison
from convertly_source.loading.held import HeldJob, HeldJobs
from convertly_source.reading.job import PositionedJob, RemovedJob
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import DisorderError
from convertly_source.reading.run import (
    NOTHING_STORED,
    Changes,
    IncrementalRun,
    RunState,
    StoredJobs,
    Window,
)
from convertly_source.tables.records import fingerprint


class VerifyResult(NamedTuple):
    """How an account and the tables compare, up to the newest job when it began."""

    listed: int  # jobs of the account
    held: int  # jobs in the tables, after what differed was loaded
    loaded: int  # jobs that were missing or different, and are loaded again
    removed: int  # jobs that were no longer listed
    requests: int


class Store(Protocol):
    """The tables of a warehouse, without the jobs that they know as removed."""

    def jobs(self, since: datetime, before: datetime) -> Iterator[HeldJob]:
        """Return the jobs of a range."""

    def rejected_jobs(self, since: datetime, before: datetime) -> Iterator[HeldJob]:
        """Return the jobs of a range that can't be stored."""


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
        stored: StoredJobs = NOTHING_STORED,
    ) -> None:
        ordinary = state | {"count_has_risen": False, "start": None}  # it need not read all again
        super().__init__(
            listing, status, ordinary, window, trust_account=trust_account, stored=stored
        )
        self.state |= {"count_has_risen": state["count_has_risen"], "start": state["start"]}
        self.loaded_again, self.found_removed = 0, 0
        self.comparison = Comparison(listing, held_jobs)
        self._held_jobs, self._store, self._read_all = held_jobs, store, read_all
        self._loaded = set[int]()  # hashes of ids
        self._rejected = dict[str, datetime]()  # those that were handed over, by fingerprint
        self._gone_rejected = set[str]()  # fingerprints that are no longer where they are held

    def result(self) -> VerifyResult:
        """Return what was found."""
        found = self.loaded_again, self.found_removed
        return VerifyResult(*self.comparison.counts, *found, self._listing.requests)

    @property
    def no_longer_rejected(self) -> list[str]:
        """Fingerprints of rejected jobs that the API no longer lists."""
        return sorted(self._gone_rejected - self._rejected.keys())

    @property
    def redated(self) -> dict[str, datetime]:
        """The new `created_at`, by fingerprint, of rejected jobs that have moved in the list."""
        return {key: time for key, time in self._rejected.items() if key in self._gone_rejected}

    def check(self) -> None:
        """Raise `ResponseError` if the account is at rest, and still differs."""
        if self.comparison.differs_at_rest():
            listed, held = self.comparison.counts
            raise ResponseError(f"The API says that there are {listed:,} jobs, and lists {held:,}.")

    def _find_changes(self) -> Iterator[Changes]:
        """Run as usual, then compare; jobs that are created from now on wait for the next run."""
        for changes in super()._find_changes():
            self._held_jobs.follow(changes)
            self._note_rejected(changes.rejected)
            yield changes
        self._loaded.update(self._handed_over)
        for compared in self.comparison.ranges(read_all=self._read_all):
            self.expected = self.comparison.expected or self.expected
            yield from self._mend(compared)
        self._forget_ended()
        listed, held = self.comparison.counts
        self.state |= {"count_has_risen": False, "start": None}
        self._late = listed - held

    def _everything(self) -> Iterator[Changes]:
        raise DisorderError

    def _mend(self, compared: Compared) -> Iterator[Changes]:
        """Hand over the jobs of a range that were missing or different, and those that are gone."""
        since, before, jobs_read, difference = compared
        yield Changes(jobs_read=jobs_read)
        if not difference:
            return
        rejected = [job for job in difference.different if not job.job.is_usable]
        self._note_rejected(rejected)
        yield Changes(rejected=rejected)
        usable = [job for job in difference.different if job.job.is_usable]
        again = [job for job in usable if hash(job.key) not in self._loaded]
        for job in again:
            self._track(job)
        self._loaded.update(hash(job.key) for job in again)
        self.loaded_again += len(again)
        yield Changes([job.job for job in again])
        gone = difference.gone - self._loaded  # the answer may be older than one that had them
        if gone:
            rows = [job for job in self._store.jobs(since, before) if hash(job.key) in gone]
            for row in rows:
                self.state["tracked"].pop(row.key, None)
            self.found_removed += len(rows)
            yield Changes(removed=[RemovedJob(row.key, row.created_at, row.status) for row in rows])
            stored = self._store.rejected_jobs(since, before)
            self._gone_rejected |= {job.key for job in stored if hash(job.key) in gone}

    def _note_rejected(self, jobs: Iterable[PositionedJob]) -> None:
        self._rejected |= {fingerprint(job.job.raw): job.created_at for job in jobs}
