"""The jobs that the warehouse holds, in memory: counted, and compared with what is listed."""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Container, Iterable
from datetime import datetime
from typing import NamedTuple

from convertly_source.reading.job import BEGINNING, TICK, ListedJob, PositionedJob
from convertly_source.reading.run import Changes
from convertly_source.tables.records import fingerprint, rejected_record
from convertly_source.tables.values import storable


class HeldJob(NamedTuple):
    """What a job is compared by."""

    created_at: datetime
    key: str  # its id; of a job that can't be stored the fingerprint
    status: str

    @classmethod
    def of(cls, listed: PositionedJob) -> "HeldJob":
        """Return what a listed job is held as."""
        job = listed.job
        if job.is_usable:
            return cls(listed.created_at, listed.key, stored_status(job))
        row = rejected_record(job, listed.created_at)
        return cls(row["created_at"], row["fingerprint"], row["status"])


class Difference(NamedTuple):
    """How the jobs that are held in a range differ from those that are listed there."""

    listed: list[HeldJob]
    different: list[PositionedJob]  # missing, or held with another status
    gone: set[int]  # hashes of keys
    statuses: set[str]  # of those that may hide others from a count; purged jobs don't


class HeldJobs:
    """Jobs by `created_at`, 16 bytes each: how many there are in a range, and which.

    A range is half-open. The keys of jobs are known by their hashes.
    """

    def __init__(self, jobs: Iterable[HeldJob] = ()) -> None:
        # By status: times in microseconds, and the hash of a key for each.
        self._lists: dict[str, tuple[array[int], array[int]]] = defaultdict(_new_list)
        for job in jobs:
            self.add(job)

    def add(self, job: HeldJob) -> None:
        """Add a job; it is quick for the youngest one."""
        times, keys = self._lists[job.status]
        time = _microseconds(job.created_at)
        at = bisect_right(times, time)
        times.insert(at, time)
        keys.insert(at, hash(job.key))

    def follow(self, changes: Changes) -> None:
        """Hold what a run has found."""
        for job in changes.jobs:
            created_at, key = job.created_at or BEGINNING, job.id or ""  # it has both
            self.discard(created_at, key)
            self.add(HeldJob(created_at, key, stored_status(job)))
        for entry in map(HeldJob.of, changes.rejected):
            self.discard(entry.created_at, entry.key)
            self.add(entry)
        for removed in changes.removed:
            self.discard(removed.created_at, removed.id)

    def discard(self, created_at: datetime, key: str) -> None:
        """Take a job out, if it is there."""
        for times, keys in self._lists.values():
            for at in _indexes(times, created_at, created_at + TICK):
                if keys[at] == hash(key):
                    del times[at], keys[at]
                    break

    def count(self, since: datetime, before: datetime, status: str | None = None) -> int:
        """Count the jobs of a range, of any status or of one."""
        return sum(len(_indexes(times, since, before)) for times, _ in self._of(status))

    def between(
        self, since: datetime, before: datetime, status: str | None = None
    ) -> dict[int, tuple[datetime, str]]:
        """Return `created_at` and status of the jobs of a range, by the hashes of their keys."""
        statuses = self._lists if status is None else [status]
        return {
            keys[at]: (BEGINNING + times[at] * TICK, name)
            for name in statuses
            for times, keys in [self._lists[name]]
            for at in _indexes(times, since, before)
        }

    def replace(self, since: datetime, before: datetime, jobs: Iterable[HeldJob]) -> None:
        """Hold these jobs in a range, in place of those that are there."""
        for times, keys in self._lists.values():
            indexes = _indexes(times, since, before)
            del times[indexes.start : indexes.stop], keys[indexes.start : indexes.stop]
        for job in jobs:
            self.add(job)

    def _of(self, status: str | None) -> "Iterable[tuple[array[int], array[int]]]":
        return self._lists.values() if status is None else [self._lists[status]]

    def difference(
        self, since: datetime, before: datetime, jobs: Iterable[PositionedJob]
    ) -> Difference | None:
        """Return how a range differs from `jobs`, which are all that is listed there."""
        held = self.between(since, before)
        pairs = [(_as_held(job, held), job) for job in jobs if since <= job.created_at < before]
        different = [
            (one, job)
            for one, job in pairs
            if held.get(hash(one.key)) != (one.created_at, one.status) and not job.is_duplicate
        ]
        gone = held.keys() - {hash(one.key) for one, _ in pairs}
        if not (different or gone) and len(pairs) == self.count(since, before):
            return None
        oldest = pairs[0][1].created_at if pairs and since == BEGINNING else since
        statuses = {held[key][1] for key in gone if held[key][0] >= oldest}
        statuses |= {one.status for one, _ in different}
        listed = [one for one, _ in pairs]
        return Difference(listed, [job for _, job in different], gone, statuses)

    def first_difference(
        self, since: datetime, before: datetime, jobs: Iterable[PositionedJob], status: str
    ) -> datetime | None:
        """Return when the first job was created that only is listed in a status, or only held."""
        held = {key: time for key, (time, _) in self.between(since, before, status).items()}
        listed = {
            hash(HeldJob.of(job).key): job.created_at
            for job in jobs
            if since <= job.created_at < before
        }
        different = held.keys() ^ listed.keys()
        return min(((held | listed)[key] for key in different), default=None)


def _as_held(job: PositionedJob, held: Container[int]) -> HeldJob:
    """Return what a listed job is held as: one that failed to be mapped by its fingerprint."""
    one = HeldJob.of(job)
    if hash(one.key) not in held and hash(key := fingerprint(job.job.raw)) in held:
        return HeldJob(job.created_at, key, job.job.status)
    return one


def stored_status(job: ListedJob) -> str:
    """Return the status as it is in the column of that name; empty if it is no text."""
    data_type, status = storable(job.raw.get("status"), "text")
    return status if data_type == "text" else ""


def _new_list() -> "tuple[array[int], array[int]]":
    return array("q"), array("q")


def _indexes(times: "array[int]", since: datetime, before: datetime) -> range:
    start = bisect_left(times, _microseconds(since))
    return range(start, bisect_left(times, _microseconds(before), start))


def _microseconds(time: datetime) -> int:
    return (time - BEGINNING) // TICK
