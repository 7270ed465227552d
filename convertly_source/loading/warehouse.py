"""The tables in an SQL destination: which jobs they hold, and what a load deletes from them."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.time import ensure_datetime_in_tz

from convertly_source.api.client import FINAL_STATUSES
from convertly_source.loading import refresh
from convertly_source.loading.held import HeldJob, HeldJobs
from convertly_source.loading.state import landmarks, note_recorded
from convertly_source.loading.target import count_rows, open_client
from convertly_source.loading.verify import VerifyRun
from convertly_source.reading.job import NOT_HELD
from convertly_source.reading.landmarks import MAX_LANDMARKS, Landmark
from convertly_source.reading.run import NOTHING_STORED, IncrementalRun, StoredJobs
from convertly_source.source import MAKE_RUN

ROWS_AT_A_TIME = 10_000
KEYS_AT_A_TIME = 500


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
        """Yield the rows of `rejected_jobs` for a range of `created_at`."""
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


@contextmanager
def verifying(pipeline: dlt.Pipeline, *, read_all: bool) -> Iterator[list[VerifyRun]]:
    """Let the run that the source makes meanwhile be a `VerifyRun`, which is added to the list."""
    warehouse, runs = Warehouse(pipeline), list[VerifyRun]()
    held_jobs = warehouse.held_jobs()  # before the list is asked: each of them was listed once

    def make_run(*arguments: Any, **more: Any) -> VerifyRun:
        more |= {"store": warehouse, "held_jobs": held_jobs, "read_all": read_all}
        more["stored"] = NOTHING_STORED._replace(landmarks=known)
        runs.append(VerifyRun(*arguments, **more))
        return runs[-1]

    known = known_landmarks(pipeline)
    note_recorded(pipeline, [job.key for job in warehouse.rejected_jobs()])
    with _runs_made_by(make_run):
        yield runs


@contextmanager
def following(stored: StoredJobs) -> Iterator[None]:
    """Let the run that the source makes meanwhile know these jobs, too."""
    with _runs_made_by(partial(IncrementalRun, stored=stored)):
        yield


@contextmanager
def _runs_made_by(make_run: Callable[..., IncrementalRun]) -> Iterator[None]:
    token = MAKE_RUN.set(make_run)
    try:
        yield
    finally:
        MAKE_RUN.reset(token)


def stored_jobs(pipeline: dlt.Pipeline) -> StoredJobs:
    """Return what a run should know of the tables."""
    is_unfinished = f"coalesce(status, '') NOT IN ({_marks(FINAL_STATUSES)})"
    unfinished = {
        key: (_utc(time), status or "", "", NOT_HELD)
        for key, time, status in _select_listed(pipeline, is_unfinished, *FINAL_STATUSES)
    }
    return StoredJobs(unfinished, known_landmarks(pipeline))


def known_landmarks(pipeline: dlt.Pipeline) -> list[Landmark]:
    """Return the landmarks of the state; if it has none, some of the youngest jobs that are stored.

    Those have ended, and each is alone at its time.
    """
    if found := landmarks(pipeline):
        return found
    has_ended = f"status IN ({_marks(FINAL_STATUSES)}) ORDER BY created_at DESC LIMIT 200"
    rows = [
        (_utc(time), key) for key, time, _ in _select_listed(pipeline, has_ended, *FINAL_STATUSES)
    ]
    neighbours = zip(rows, rows[1:], rows[2:], strict=False)
    alone = [one for after, one, before in neighbours if after[0] > one[0] > before[0]]
    return sorted(alone[:: len(alone) // MAX_LANDMARKS + 1])


def _select_listed(
    pipeline: dlt.Pipeline, condition: str, *values: Any
) -> list[tuple[str, datetime, str]]:
    """Return id, time and status of the jobs that are not known as removed.

    In a refresh, rows that it will delete don't count.
    """
    with open_client(pipeline) as client, suppress(DestinationUndefinedEntity):
        jobs, removed = map(client.make_qualified_table_name, ("jobs", "removed_jobs"))
        rows: Any = client.execute_sql(
            f"SELECT id, created_at, status FROM {jobs} AS held WHERE _dlt_load_id > %s"  # noqa: S608
            f" AND NOT EXISTS (SELECT 1 FROM {removed} AS gone WHERE gone.id = held.id)"
            f" AND {condition}",
            refresh.mark(pipeline),
            *values,
        )
        return rows or []
    return []


def forget_relisted(pipeline: dlt.Pipeline, load_ids: list[str]) -> None:
    """Delete from `removed_jobs` the jobs that these loads have found in the list again."""
    if not (load_ids and count_rows(pipeline, "removed_jobs")):
        return
    with open_client(pipeline) as client:
        jobs, removed = map(client.make_qualified_table_name, ("jobs", "removed_jobs"))
        loaded = f"SELECT id FROM {jobs} WHERE _dlt_load_id IN ({_marks(load_ids)})"  # noqa: S608
        sql = f"SELECT id FROM {removed} WHERE id IN ({loaded})"  # noqa: S608
        relisted = [key for (key,) in client.execute_sql(sql, *load_ids) or ()]
    _delete(pipeline, "removed_jobs", "id", relisted)


def forget_rejected(pipeline: dlt.Pipeline, fingerprints: list[str]) -> None:
    """Delete the jobs that can't be stored and are no longer listed."""
    _delete(pipeline, "rejected_jobs", "fingerprint", fingerprints)


def redate_rejected(pipeline: dlt.Pipeline, times: dict[str, datetime]) -> None:
    """Set the `created_at` of rejected jobs; `times` has it by fingerprint."""
    with open_client(pipeline) as client:
        name = client.make_qualified_table_name("rejected_jobs")
        for key, time in times.items():
            sql = f"UPDATE {name} SET created_at = %s WHERE fingerprint = %s"  # noqa: S608
            client.execute_sql(sql, time, key)


def _delete(pipeline: dlt.Pipeline, table: str, column: str, keys: list[str]) -> None:
    with open_client(pipeline) as client:
        name = client.make_qualified_table_name(table)
        for start in range(0, len(keys), KEYS_AT_A_TIME):
            some = keys[start : start + KEYS_AT_A_TIME]
            client.execute_sql(f"DELETE FROM {name} WHERE {column} IN ({_marks(some)})", *some)  # noqa: S608


def _marks(values: Collection[str]) -> str:
    return ", ".join(["%s"] * len(values))


def _range(since: datetime | None, before: datetime | None) -> tuple[str, list[datetime]]:
    bounds = {"created_at >= %s": since, "created_at < %s": before}
    given = {condition: bound for condition, bound in bounds.items() if bound}
    return " AND ".join(["created_at IS NOT NULL", *given]), [*given.values()]


def _utc(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(timezone.utc)
    return ensure_datetime_in_tz(value, timezone.utc)
