"""One load of an account, from what an earlier one has left to the views."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import dlt
from dlt.common import logger
from dlt.common.pipeline import LoadInfo
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import has_table_seen_data
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import retry_schema_update
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from convertly_source.errors import SettingsError, causes
from convertly_source.loading import refresh
from convertly_source.loading.comments import add_comments, descriptions
from convertly_source.loading.locks import database_lock, file_lock, has_lock
from convertly_source.loading.refused import refusals_explained, without_failures_in_the_log
from convertly_source.loading.settings import configure
from convertly_source.loading.state import (
    count_has_risen,
    has_left_out_jobs,
    has_lost_state,
    known_account,
    knows_jobs,
    loaded_host,
    refuse_other_account,
)
from convertly_source.loading.target import (
    Target,
    count_rows,
    describe,
    is_lake,
    kept_open,
    name_in_sql,
    refuse_ambiguous_name,
    refuse_naming,
    refuse_shared_staging,
    repair_tables,
    restore,
    stored_tables,
    trim_state,
    using,
    working_folder,
)
from convertly_source.loading.unlocked import load_alone
from convertly_source.loading.verify import VerifyResult, VerifyRun
from convertly_source.loading.views import create_views, refuse_views
from convertly_source.loading.warehouse import (
    following,
    forget_rejected,
    forget_relisted,
    known_landmarks,
    redate_rejected,
    stored_jobs,
    verifying,
)
from convertly_source.reading.pages import DisorderError
from convertly_source.reading.run import NOTHING_STORED
from convertly_source.tables.schema import TABLES

T = TypeVar("T")

PAGES_PER_CHUNK = 200
DEMO_HOST = "127.0.0.1"
CHILD_COLUMNS: dict[str, TColumnSchema] = {  # those that dlt adds to a child table
    "_dlt_root_id": {
        "name": "_dlt_root_id",
        "data_type": "text",
        "nullable": False,
        "root_key": True,
    },
    "_dlt_parent_id": {
        "name": "_dlt_parent_id",
        "data_type": "text",
        "nullable": False,
        "parent_key": True,
    },
    "_dlt_list_idx": {"name": "_dlt_list_idx", "data_type": "bigint", "nullable": False},
    "_dlt_id": {
        "name": "_dlt_id",
        "data_type": "text",
        "nullable": False,
        "unique": True,
        "row_key": True,
    },
}


class LoadResult(NamedTuple):
    """What a load has done."""

    rows: Counter[str]  # rows that were loaded, by table
    new_jobs: int | None  # how many jobs the table has gained; None for a lake, which can't count
    listed: int  # jobs in the list of the API when the load began
    held: int | None  # how many of these are loaded; None for a part of the account
    place: str  # where the tables are, in words
    dataset: str  # as it is named in SQL, quoted where that may be needed


class Chunk(NamedTuple):
    """Some pages that were loaded."""

    rows: Counter[str]
    info: LoadInfo | None  # None if there was nothing to load

    @property
    def loads_of_jobs(self) -> list[str]:
        """The ids of the loads that brought jobs, as they are in `_dlt_load_id`."""
        return self.info.loads_ids if self.info and self.rows["jobs"] else []


def load_account(
    target: Target,
    source: DltSource,
    *,
    pages_per_chunk: int = PAGES_PER_CHUNK,
    full_refresh: bool = False,
    views: bool = False,
    wait_seconds: float = 0,
    progress: Collector = NULL_COLLECTOR,
    report: Callable[[str], None] = logger.info,
    rows: Counter[str] | None = None,
) -> LoadResult:
    """Load what has changed in an account since the last load into the same target.

    Args:
        target: Where to load to.
        source: `convertly_source()`, with the settings of the account.
        pages_per_chunk: Pages of the API to load at a time, 0 for all at once.
        full_refresh: Load everything again, and delete what the account no longer has.
        views: Create the views for BI; `SettingsError` where the destination doesn't take them.
        wait_seconds: How long to wait for another load into the same target to end.
        progress: Is told how many jobs were read.
        report: Is told in a sentence what else a person should know.
        rows: Counts the rows by table while they are loaded, for a caller that may be interrupted.

    Raises:
        ConvertlyError: `convertly_source.errors` has its subclasses. dlt wraps those that occur
            while the account is read; `explained` finds them. What was loaded stays loaded, and
            the next load continues from there.
    """
    if views:
        refuse_views(target.destination)
    rows = Counter() if rows is None else rows
    rows.update(dict.fromkeys(TABLES, 0))
    load = partial(
        _load, source, rows, report, pages_per_chunk, full_refresh=full_refresh, views=views
    )
    return _in_turn(target, source, wait_seconds, progress, load)


def verify_account(
    target: Target,
    source: DltSource,
    *,
    read_all: bool = False,
    wait_seconds: float = 0,
    progress: Collector = NULL_COLLECTOR,
    report: Callable[[str], None] = logger.info,
) -> VerifyResult:
    """Make the tables equal to the account, also where no ordinary load sees a difference.

    Load jobs that are missing or changed after they had ended, and record in `removed_jobs` those
    that are no longer listed. It takes few requests: positions in the list are compared with
    counts in the warehouse. Differences of one status may cancel there; `read_all` finds all.

    Args:
        target: Where the account was loaded to: an SQL destination.
        source: `convertly_source()`, with the settings of the account, but no part of it.
        read_all: Read the whole account, and compare every job.
        wait_seconds: How long to wait for a load into the same target to end.
        progress: Is told how many jobs were read.
        report: Is told in a sentence what else a person should know.

    Raises:
        ConvertlyError: As `load_account`. `SettingsError` for a lake, a source that reads a part
            of the account, and a list in no order; `ResponseError` if an account at rest lists
            another number of jobs than the warehouse then holds.
    """
    verify = partial(_verify_account, source, report, read_all=read_all)
    return _in_turn(target, source, wait_seconds, progress, verify)


def _in_turn(
    target: Target,
    source: DltSource,
    wait_seconds: float,
    progress: Collector,
    load: Callable[[dlt.Pipeline], T],
) -> T:
    """Return what `load` returns for a pipeline that was restored, while nobody else loads."""
    configure(target.destination)
    refuse_naming(source.schema)
    with using(target):
        place = target.place()
    folder = working_folder(place)
    with without_failures_in_the_log(), file_lock(folder, place, wait_seconds):
        pipeline = target.fresh_pipeline(folder, progress)
        refuse_ambiguous_name(pipeline)
        if not (has_lock(pipeline) or is_lake(pipeline)):
            return load_alone(target, folder, progress, load)
        with ExitStack() as stack:
            with using(target):
                stack.enter_context(database_lock(pipeline, place, wait_seconds))
                restore(pipeline)
            return load(pipeline)


def _load(
    source: DltSource,
    rows: Counter[str],
    report: Callable[[str], None],
    pages_per_chunk: int,
    pipeline: dlt.Pipeline,
    *,
    full_refresh: bool,
    views: bool,
) -> LoadResult:
    """Load into the target of a pipeline that was restored, while nobody else does."""
    metrics = source.resources["jobs"].custom_metrics
    was_loaded = "jobs" in stored_tables(pipeline)
    can_count = not is_lake(pipeline)
    jobs_before, stored = 0, NOTHING_STORED
    with kept_open(pipeline):
        _begin(pipeline, source, report, full_refresh=full_refresh)
        if can_count:
            jobs_before = count_rows(pipeline, "jobs")
            stored = stored_jobs(pipeline)
        if "removed_jobs" not in source.selected_resources:  # none would be known as removed
            stored = stored._replace(unfinished={})
    metrics["kind"] = "refresh" if refresh.is_under_way(pipeline) else "load"
    load_ids = list[str]()
    reason = "Jobs before the start date were left out"
    is_compared = (
        can_count
        and metrics["is_whole"]
        and has_left_out_jobs(pipeline)
        and _verify_and_report(pipeline, source, rows, report, reason)
    )
    if not is_compared:
        with following(stored):
            for chunk in load_in_chunks(pipeline, source, pages_per_chunk):
                rows.update(chunk.rows)
                load_ids += chunk.loads_of_jobs
                if was_loaded and chunk.info:
                    for sentence in _new_fields(chunk.info):
                        report(sentence)
    _follow_up(pipeline, source, load_ids, rows, report)
    new_jobs = None
    with kept_open(pipeline):
        if can_count:
            jobs_after = count_rows(pipeline, "jobs") if rows["jobs"] else jobs_before
            new_jobs = jobs_after - jobs_before
            _create_results_table(pipeline)
            if refresh.is_under_way(pipeline) and (full_refresh or metrics["is_whole"]):
                refresh.finish(pipeline)
            trim_state(pipeline)
        if views:
            create_views(pipeline)
    dataset = name_in_sql(pipeline) if can_count else ""
    run = metrics["last_run"]
    return LoadResult(rows, new_jobs, run["listed"], run["held"], describe(pipeline), dataset)


def _verify_account(
    source: DltSource,
    report: Callable[[str], None],
    pipeline: dlt.Pipeline,
    *,
    read_all: bool,
) -> VerifyResult:
    """Verify the target of a pipeline that was restored, while nobody else loads into it."""
    metrics = source.resources["jobs"].custom_metrics
    if is_lake(pipeline):
        raise SettingsError("A lake can't be asked which jobs it holds.", "Load all of it again.")
    if not metrics["is_whole"]:
        raise SettingsError(
            "Only a whole account can be compared.", "Leave out status, start_date and end_date."
        )
    if "jobs" not in stored_tables(pipeline):
        raise SettingsError("There is nothing to compare yet.", "Load the account first.")
    refuse_other_account(pipeline, metrics["host"])
    with kept_open(pipeline):
        _begin(pipeline, source, report)
    run = _verify(pipeline, source, Counter(), read_all=read_all)
    if refresh.is_under_way(pipeline):
        refresh.finish(pipeline)
    run.check()
    return run.result()


def _begin(
    pipeline: dlt.Pipeline,
    source: DltSource,
    report: Callable[[str], None],
    *,
    full_refresh: bool = False,
) -> None:
    """Repair the tables, and begin or resume a refresh where one is needed."""
    refuse_shared_staging(pipeline)
    refresh.check_mark(pipeline)
    metrics = source.resources["jobs"].custom_metrics
    can_repair = not is_lake(pipeline) and "jobs" in stored_tables(pipeline)
    is_damaged = can_repair and _repair(pipeline, source, report)
    if is_damaged and not metrics["is_whole"]:
        report("This load reads a part of the account: load once without a range and a status.")
    is_demo = loaded_host(pipeline) == DEMO_HOST != metrics["host"]
    if is_demo and not full_refresh:
        report("Replacing the demo data with your account.")
    if is_demo or full_refresh:
        refresh.begin(pipeline, is_whole=metrics["is_whole"])
    else:
        refuse_other_account(pipeline, metrics["host"])
        if is_damaged:
            account = known_account(pipeline) | {"landmarks": known_landmarks(pipeline)}
            refresh.begin(pipeline, account=account)
        refresh.resume(pipeline, is_whole=metrics["is_whole"])


def _follow_up(
    pipeline: dlt.Pipeline,
    source: DltSource,
    load_ids: list[str],
    rows: Counter[str],
    report: Callable[[str], None],
) -> None:
    """Do what some loads lead to, where the tables can be asked and changed by SQL.

    A job that is listed again is no longer removed; a risen count makes the load verify.
    """
    if is_lake(pipeline):
        return
    forget_relisted(pipeline, load_ids)
    if source.resources["jobs"].custom_metrics["is_whole"] and count_has_risen(pipeline):
        reason = "Jobs have appeared late"
        if not _verify_and_report(pipeline, source, rows, report, reason):
            for chunk in load_in_chunks(pipeline, source):
                rows.update(chunk.rows)


def _verify_and_report(
    pipeline: dlt.Pipeline,
    source: DltSource,
    rows: Counter[str],
    report: Callable[[str], None],
    reason: str,
) -> bool:
    """Verify as part of a load, and report why, and what was found.

    Return False if the list has no order: comparing needs one, so all of it has to be read.
    """
    try:
        verified = _verify(pipeline, source, rows).result()
    except PipelineStepFailed as error:
        if not any(isinstance(cause, DisorderError) for cause in causes(error)):
            raise
        source.resources["jobs"].custom_metrics["kind"] = "load"
        return False
    report(
        f"{reason}, so all were compared: {verified.loaded:,} loaded, {verified.removed:,} removed."
    )
    return True


def _verify(
    pipeline: dlt.Pipeline,
    source: DltSource,
    rows: Counter[str],
    *,
    read_all: bool = False,
) -> VerifyRun:
    """Compare what is held with what is listed, and load what differs."""
    source.resources["jobs"].custom_metrics["kind"] = "verify"
    load_ids = list[str]()
    with verifying(pipeline, read_all=read_all) as runs:
        for chunk in load_in_chunks(pipeline, source):
            load_ids += chunk.loads_of_jobs
            rows.update(chunk.rows)
    [run] = runs
    forget_relisted(pipeline, load_ids)
    forget_rejected(pipeline, run.no_longer_rejected)
    redate_rejected(pipeline, run.redated)
    refresh.delete_orphans(pipeline)  # of rows that were lost, and have come back
    return run


def _repair(pipeline: dlt.Pipeline, source: DltSource, report: Callable[[str], None]) -> bool:
    """Make tables again that are missing; return whether rows are missing, too, and report why."""
    dropped = source.selected_resources.keys() - stored_tables(pipeline)  # by a command of dlt
    if missing := sorted({*repair_tables(pipeline), *dropped}):
        add_comments(pipeline)
        report(f"Missing in the destination: {', '.join(missing)}. Reading everything again.")
        return True
    if not count_rows(pipeline, "jobs"):
        if knows_jobs(pipeline):
            report("The table jobs is empty. Reading everything again.")
            return True
    elif has_lost_state(pipeline) and not refresh.is_under_way(pipeline):
        report("The saved state is gone. Reading everything again.")
        return True
    return False


def load_in_chunks(
    pipeline: dlt.Pipeline, source: DltSource, pages_per_chunk: int = PAGES_PER_CHUNK
) -> Iterator[Chunk]:
    """Load all that the source has to give, some pages at a time; yield after each of these loads.

    A load that is killed keeps the chunks that were loaded.
    """
    jobs = source.resources["jobs"]
    if pages_per_chunk:
        jobs.add_limit(pages_per_chunk)
    drop: Any = refresh.take_drop(pipeline)
    is_complete = False
    while not is_complete:
        known = descriptions(pipeline)
        pipeline.extract(source, refresh=drop)
        drop = None
        counts = pipeline.normalize().row_counts
        rows = {table: counts[table] for table in counts if not table.startswith("_dlt")}
        with kept_open(pipeline):
            info = _load_package(pipeline)
            add_comments(pipeline, known)
        is_complete = jobs.custom_metrics["is_complete"]
        yield Chunk(Counter(rows), info)


@retry(  # another load may add the same table or column at the same time
    retry=retry_if_exception(retry_schema_update()),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 2),
    reraise=True,
)
def _load_package(pipeline: dlt.Pipeline) -> LoadInfo | None:
    with refusals_explained(pipeline):
        return pipeline.load()


def _new_fields(info: LoadInfo) -> Iterator[str]:
    """Yield a sentence for each load that brought columns which are not documented."""
    for package in info.load_packages:
        for table, update in package.schema_update.items():
            known = TABLES[table][1] if table in TABLES else {}
            new = [
                f"{table}.{name} ({column.get('data_type')})"
                for name, column in update.get("columns", {}).items()
                if name not in known and "_dlt_" not in f"{table}.{name}"
            ]
            if new:
                yield f"New in the API: {', '.join(sorted(new))}."


def _create_results_table(pipeline: dlt.Pipeline) -> None:
    """Create `jobs__results` if there were no results yet: dlt does so with the first row."""
    table = pipeline.default_schema.tables["jobs__results"]
    if not has_table_seen_data(table):
        table["x-normalizer"] = {"seen-data": True}
        table["columns"].update(CHILD_COLUMNS)
        pipeline.sync_schema()
        add_comments(pipeline)
