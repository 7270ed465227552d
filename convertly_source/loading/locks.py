"""One load at a time into a target: in this machine by a file, between machines by the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import dlt
from filelock import FileLock, Timeout

from convertly_source.errors import BusyError

LOCKS = {  # try to lock a name
    "postgres": "SELECT pg_try_advisory_xact_lock{}(hashtextextended(%s, 0))",
    "mysql": "SELECT GET_LOCK(%s, 0)",
    "mariadb": "SELECT GET_LOCK(%s, 0)",
}
POLL_SECONDS = 1.0  # between two tries to get the lock of a database


@contextmanager
def file_lock(folder: Path, place: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock of a working folder; the system releases it when the holder is killed.

    Raise `BusyError` if another load still holds it after `wait_seconds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    since = folder / "since"
    try:
        with FileLock(folder / "lock", timeout=max(0, wait_seconds)):
            since.write_text(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC")
            yield
    except Timeout as error:
        raise BusyError(place, since.read_text() if since.exists() else None) from error


@contextmanager
def database_lock(
    pipeline: dlt.Pipeline, place: str, wait_seconds: float = 0, *, is_shared: bool = False
) -> Iterator[None]:
    """Hold the lock that the database itself has for a dataset, where it has one.

    PostgreSQL, MySQL and MariaDB have one: it is held by a connection of its own, and released when
    that one ends. On PostgreSQL it belongs to a transaction, so that it also holds through a
    pooler, and several loads may share it. Raise `BusyError` if it is not free after
    `wait_seconds`.
    """
    statement = LOCKS.get(_dialect(pipeline))
    if not statement:
        yield
        return
    client: Any = pipeline.sql_client()
    sql = statement.format("_shared" if is_shared else "")
    deadline = monotonic() + wait_seconds
    with client, client.begin_transaction():
        if "pg_" in sql:
            client.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        while not client.execute_sql(sql, f"convertly:{pipeline.dataset_name}")[0][0]:
            if monotonic() >= deadline:
                raise BusyError(place)
            sleep(min(POLL_SECONDS, max(0, deadline - monotonic())))
        yield
        client.execute_sql("SELECT 1")  # raises if the lock was lost with its connection


def has_lock(pipeline: dlt.Pipeline) -> bool:
    """Return whether the database has a lock for a dataset."""
    return _dialect(pipeline) in LOCKS


def _dialect(pipeline: dlt.Pipeline) -> str:
    """Return which database a pipeline loads into; `sqlalchemy` is the way to several."""
    kind = pipeline.destination.destination_type.rpartition(".")[2]
    if kind == "sqlalchemy":
        client: Any = pipeline.sql_client()
        return str(client.dialect_name)
    return kind
