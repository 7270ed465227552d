"""A full refresh that never leaves less than there was.

Everything is read again and merged over what is there; what was not read again is deleted at the
end. A mark in the state says that this is under way, so that the next load finishes it. Lakes
can't delete rows: there the mark says that the next load is to drop the tables, and is removed by
the package that does.
"""

import time
from collections.abc import Mapping
from typing import Any

import dlt

from convertly_source.errors import ConvertlyError
from convertly_source.loading.state import known_account
from convertly_source.loading.target import (
    SCHEMA,
    commit_state,
    drop_staging,
    is_lake,
    open_client,
    stored_tables,
)

MARK = "refresh"  # in the state: the time when it began, as the load ids of dlt
PART = "refresh_of_a_part"  # in the state: only a part was read since then, so no row is old


def is_under_way(pipeline: dlt.Pipeline) -> bool:
    """Return whether a full refresh was begun and is not finished."""
    return MARK in pipeline.state


def begin(
    pipeline: dlt.Pipeline, *, is_whole: bool = True, account: Mapping[str, Any] | None = None
) -> None:
    """Forget what was read, so that the next run reads everything, and mark what is older.

    Without `is_whole`, only the load that begins it can finish it: a later one reads everything
    once more. With `account`, another one is still refused. Do nothing where nothing
    is loaded yet.
    """
    if not pipeline.default_schema_name:
        return
    if not is_lake(pipeline):
        _check_clock(_newest_load(pipeline))

    def forget(state: Any) -> None:
        state.setdefault("sources", {})[SCHEMA] = {"resources": {"jobs": dict(account or {})}}
        state[MARK] = f"{time.time():.6f}"
        state.pop(PART, None)
        if not (is_whole or is_lake(pipeline)):
            state[PART] = True

    commit_state(pipeline, forget)


def resume(pipeline: dlt.Pipeline, *, is_whole: bool) -> None:
    """Let a load take part in a refresh that an earlier one has begun, if there is one.

    A load of a part leaves the cursor behind what it has not read. So it notes that, and the next
    one of the whole account reads everything.
    """
    if not is_under_way(pipeline):
        return
    if is_whole and PART in pipeline.state:
        begin(pipeline, account=known_account(pipeline))
    elif not is_whole and PART not in pipeline.state:
        commit_state(pipeline, lambda state: state.update({PART: True}))


def take_drop(pipeline: dlt.Pipeline) -> str | None:
    """Return how dlt is to refresh a lake, and remove the mark with the load that does so.

    A staging dataset, which dlt makes if it is to truncate one, has no tables: dlt would fail to
    drop them there.
    """
    if not (is_lake(pipeline) and is_under_way(pipeline)) or PART in pipeline.state:
        return None
    drop_staging(pipeline)
    with pipeline.managed_state() as state:
        _take_mark(state)
    return "drop_sources"


def check_mark(pipeline: dlt.Pipeline) -> None:
    """Raise if a refresh is under way that began later than it is now, by this machine's clock."""
    if not is_lake(pipeline):
        _check_clock(mark(pipeline))


def finish(pipeline: dlt.Pipeline) -> None:
    """Delete the rows that were not read again, and remove the mark."""
    newest_old_load = mark(pipeline)
    tables = stored_tables(pipeline)
    with open_client(pipeline) as client, client.begin_transaction():
        for table in {"jobs", "rejected_jobs", "removed_jobs"} & tables:
            name = client.make_qualified_table_name(table)
            client.execute_sql(f"DELETE FROM {name} WHERE _dlt_load_id <= %s", newest_old_load)  # noqa: S608
    delete_orphans(pipeline)
    commit_state(pipeline, _take_mark)


def delete_orphans(pipeline: dlt.Pipeline) -> None:
    """Delete the results of jobs whose rows are no longer there."""
    if "jobs__results" not in stored_tables(pipeline):  # `pipeline.run` makes it with the first row
        return
    with open_client(pipeline) as client:
        jobs, results = map(client.make_qualified_table_name, ("jobs", "jobs__results"))
        client.execute_sql(
            f"DELETE FROM {results} WHERE NOT EXISTS"  # noqa: S608
            f" (SELECT 1 FROM {jobs} AS held WHERE held._dlt_id = _dlt_root_id)"
        )


def mark(pipeline: dlt.Pipeline) -> str:
    """Return the load id up to which rows are old; none is, if no refresh is under way."""
    return str(pipeline.state.get(MARK, "0"))


def _take_mark(state: Any) -> None:
    del state[MARK]
    state.pop(PART, None)


def _newest_load(pipeline: dlt.Pipeline) -> str:
    with open_client(pipeline) as client:
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
