"""The jobs that the warehouse holds: read once, then counted and compared in memory."""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.time import ensure_datetime_in_tz

from convertly_source.loading.target import count_rows
from convertly_source.reading.job import BEGINNING, TICK, Listed, ListedJob
from convertly_source.reading.run import Changes
from convertly_source.tables.records import rejected_record
from convertly_source.tables.values import storable

ROWS_AT_A_TIME = 10_000
KEYS_AT_A_TIME = 500


class HeldJob(NamedTuple):
    """What a job is compared by."""

    created_at: datetime
    key: str  # its id; of a job that can't be stored the fingerprint
    status: str

    @classmethod
    def of(cls, listed: Listed) -> "HeldJob":
        """Return what a listed job is held as."""
        job = listed.job
        if job.is_usable:
            return cls(listed.created_at, listed.key, stored_status(job))
        row = rejected_record(job, listed.created_at)
        return cls(row["created_at"], row["fingerprint"], row["status"])


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
            if job.id and job.created_at:
                self.discard(job.created_at, job.id)
                self.add(HeldJob(job.created_at, job.id, stored_status(job)))
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


class Warehouse:
    """The tables of a pipeline in an SQL destination, as far as they tell which jobs are held."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._pipeline = pipeline
        self._removed = {hash(key) for (key,) in self._select("removed_jobs", "id")}

    def held_jobs(self) -> HeldJobs:
        """Read all jobs that are not known as removed, oldest first."""
        held = HeldJobs(self.jobs())
        for job in self.rejected_jobs():
            held.add(job)
        return held

    def jobs(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[HeldJob]:
        """Yield the jobs of a range, less those that are known as removed."""
        where, bounds = _range(since, before)
        for key, created_at, status in self._select(
            "jobs", "id, created_at, status", f"{where} ORDER BY created_at", *bounds
        ):
            if hash(key) not in self._removed:
                yield HeldJob(_utc(created_at), key, status or "")

    def rejected_jobs(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[HeldJob]:
        """Yield the jobs of a range that can't be stored; earlier versions did not date them."""
        columns = self._pipeline.default_schema.tables.get("rejected_jobs", {}).get("columns", {})
        if {"created_at", "status"} <= columns.keys():
            where, bounds = _range(since, before)
            for key, created_at, status in self._select(
                "rejected_jobs", "fingerprint, created_at, status", where, *bounds
            ):
                yield HeldJob(_utc(created_at), key, status or "")

    def _select(
        self, table: str, columns: str, condition: str = "1 = 1", *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table, none if it is not there."""
        with self._pipeline.sql_client() as client, suppress(DestinationUndefinedEntity):
            name = client.make_qualified_table_name(table)
            sql = f"SELECT {columns} FROM {name} WHERE {condition}"  # noqa: S608 - of this module
            with client.execute_query(sql, *values) as cursor:
                while rows := cursor.fetchmany(ROWS_AT_A_TIME):
                    yield from rows


def _new_list() -> "tuple[array[int], array[int]]":
    return array("q"), array("q")


def _range(since: datetime | None, before: datetime | None) -> tuple[str, list[datetime]]:
    bounds = {"created_at >= %s": since, "created_at < %s": before}
    given = {condition: bound for condition, bound in bounds.items() if bound}
    return " AND ".join(["created_at IS NOT NULL", *given]), [*given.values()]


def _indexes(times: "array[int]", since: datetime, before: datetime) -> range:
    start = bisect_left(times, _microseconds(since))
    return range(start, bisect_left(times, _microseconds(before), start))


def _microseconds(time: datetime) -> int:
    return (time - BEGINNING) // TICK


def _utc(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(timezone.utc)
    return ensure_datetime_in_tz(value, timezone.utc)


def stored_status(job: ListedJob) -> str:
    """Return the status as it is in the column of that name; empty if it is no text."""
    data_type, status = storable(job.raw.get("status"), "text")
    return status if data_type == "text" else ""


def forget_relisted(pipeline: dlt.Pipeline, load_ids: list[str]) -> None:
    """Delete from `removed_jobs` the jobs that these loads have found in the list again."""
    if not (load_ids and count_rows(pipeline, "removed_jobs")):
        return
    with pipeline.sql_client() as client:
        jobs, removed = map(client.make_qualified_table_name, ("jobs", "removed_jobs"))
        loaded = f"SELECT id FROM {jobs} WHERE _dlt_load_id IN ({_marks(load_ids)})"  # noqa: S608
        sql = f"SELECT id FROM {removed} WHERE id IN ({loaded})"  # noqa: S608
        relisted = [key for (key,) in client.execute_sql(sql, *load_ids) or ()]
    _delete(pipeline, "removed_jobs", "id", relisted)


def forget_rejected(pipeline: dlt.Pipeline, fingerprints: list[str]) -> None:
    """Delete the jobs that can't be stored and are no longer listed."""
    _delete(pipeline, "rejected_jobs", "fingerprint", fingerprints)


def _delete(pipeline: dlt.Pipeline, table: str, column: str, keys: list[str]) -> None:
    with pipeline.sql_client() as client:
        name = client.make_qualified_table_name(table)
        for start in range(0, len(keys), KEYS_AT_A_TIME):
            some = keys[start : start + KEYS_AT_A_TIME]
            client.execute_sql(f"DELETE FROM {name} WHERE {column} IN ({_marks(some)})", *some)  # noqa: S608


def _marks(values: list[str]) -> str:
    return ", ".join(["%s"] * len(values))
