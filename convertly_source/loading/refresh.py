"""A full refresh that never leaves less than there was.

Everything is read again and merged over what is there; what was not read again is deleted at the
end. A mark in the state says that this is under way, so that whoever loads next finishes it. Lakes
can't delete rows: there the mark says that the next load is to drop the tables, and is removed by
the package that does.
"""

import time
from typing import Any

import dlt

from convertly_source.errors import ConvertlyError
from convertly_source.loading.target import (
    SCHEMA,
    commit_state,
    is_lake,
    known_account,
    stored_tables,
)

MARK = "refresh"  # in the state: the time when it began, as the load ids of dlt


def is_under_way(pipeline: dlt.Pipeline) -> bool:
    """Return whether a full refresh was begun and is not finished."""
    return MARK in pipeline.state


def begin(pipeline: dlt.Pipeline, *, is_same_account: bool = False) -> None:
    """Forget what was read, so that the next run reads everything, and mark what is older.

    With `is_same_account`, another account is still refused. Do nothing where nothing is loaded
    yet.
    """
    if not pipeline.default_schema_name:
        return
    if not is_lake(pipeline):
        _check_clock(_newest_load(pipeline))

    known = known_account(pipeline) if is_same_account else {}

    def forget(state: Any) -> None:
        state.setdefault("sources", {})[SCHEMA] = {"resources": {"jobs": known}}
        state[MARK] = f"{time.time():.6f}"

    commit_state(pipeline, forget)


def take_drop(pipeline: dlt.Pipeline) -> str | None:
    """Return how dlt is to refresh a lake, and remove the mark with the load that does so."""
    if not (is_lake(pipeline) and is_under_way(pipeline)):
        return None
    with pipeline.managed_state() as state:
        _take_mark(state)
    return "drop_sources"


def finish(pipeline: dlt.Pipeline) -> None:
    """Delete the rows that were not read again, and remove the mark."""
    mark = str(pipeline.state.get(MARK, "0"))
    _check_clock(mark)
    tables = stored_tables(pipeline)
    with pipeline.sql_client() as client, client.begin_transaction():
        jobs, results = map(client.make_qualified_table_name, ("jobs", "jobs__results"))
        for table in {"jobs", "rejected_jobs", "removed_jobs"} & tables:
            name = client.make_qualified_table_name(table)
            client.execute_sql(f"DELETE FROM {name} WHERE _dlt_load_id <= %s", mark)  # noqa: S608
        if "jobs__results" in tables:
            client.execute_sql(
                f"DELETE FROM {results} WHERE NOT EXISTS"  # noqa: S608
                f" (SELECT 1 FROM {jobs} WHERE {jobs}._dlt_id = {results}._dlt_root_id)"
            )
    commit_state(pipeline, _take_mark)


def _take_mark(state: Any) -> None:
    del state[MARK]


def _newest_load(pipeline: dlt.Pipeline) -> str:
    with pipeline.sql_client() as client:
        loads = client.make_qualified_table_name("_dlt_loads")
        rows = client.execute_sql(f"SELECT max(load_id) FROM {loads}")  # noqa: S608
        return str(rows[0][0] or "0") if rows else "0"


def _check_clock(load_id: str) -> None:
    """Raise if rows that are loaded from now on would count as older than that load."""
    if time.time() <= float(load_id):
        raise ConvertlyError(
            "The clock of this machine is behind that of an earlier load.",
            "Set the clock, then run again: a full refresh tells old rows from new ones by time.",
        )
