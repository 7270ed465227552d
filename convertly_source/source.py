"""The dlt source: settings in, resources out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime, timezone
from importlib import import_module
from typing import Any, Literal, NamedTuple

import dlt
from dlt.common.configuration.container import Container
from dlt.common.data_types.typing import TDataType
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import has_table_seen_data
from dlt.common.typing import TAnyDateTime, TSecretStrValue
from dlt.common.utils import uniq_id
from dlt.extract import DltResource
from dlt.extract.hints import TResourceHints, TResourceNestedHints

from convertly_source.api.client import JobsClient
from convertly_source.errors import SettingsError
from convertly_source.reading.job import BEGINNING, END
from convertly_source.reading.listing import Listing
from convertly_source.reading.run import IncrementalRun, RunState, new_state
from convertly_source.settings import (
    BASE_URL,
    LARGEST_PAGE,
    STATUSES,
    TABLE_FORMATS,
    check_choice,
    check_number,
    connect,
    parse_window,
)
from convertly_source.tables.records import RecordMapper
from convertly_source.tables.schema import HINTS, REFERENCES, RESULT_COLUMNS, TABLES

MAX_INSERTED_ROWS = 500  # into DuckDB; larger loads go through Parquet
LONGEST_NAME = 50  # of a column; with the suffix of a variant it fits into any database

FileFormat = Literal["parquet", "preferred"]
Created = dlt.sources.incremental[datetime]
# `loading` chooses the run that reads the account: a source takes no arguments once it is made.
MAKE_RUN: ContextVar[Callable[..., IncrementalRun]] = ContextVar("MAKE_RUN", default=IncrementalRun)


@dlt.source(name="convertly", section="convertly")
def convertly_source(
    api_key: TSecretStrValue | None = dlt.secrets.value,
    base_url: str = BASE_URL,
    auth_method: Literal["bearer", "x-api-key"] = "bearer",
    status: str | None = None,
    start_date: TAnyDateTime | None = None,
    end_date: TAnyDateTime | None = None,
    page_size: int = LARGEST_PAGE,
    max_connections: int = 4,
    keep_signed_urls: bool = False,  # noqa: FBT001, FBT002 - an argument of the public interface
    requests_per_minute: float | None = None,
    table_format: Literal["delta", "iceberg"] | None = None,
    trust_account: bool = False,  # noqa: FBT001, FBT002
) -> list[DltResource]:
    """Load the jobs of a Convertly account, as they are at the time of each run.

    The tables are `jobs`, its child `jobs__results`, `rejected_jobs` (jobs that can't be stored),
    `removed_jobs` (jobs that are no longer listed) and `runs` (one row per run). Each
    setting may also come from dlt's configuration, section `[sources.convertly]`.

    Args:
        api_key: A key of the workspace. Without one, `CONVERTLY_API_KEY` is used.
        base_url: Where the API is. `CONVERTLY_BASE_URL` takes the place of the default.
        auth_method: How the key is sent: `Authorization: Bearer`, or the header `x-api-key`.
        status: Load only jobs in this status: `pending`, `processing`, `completed`, `failed`.
            A job that enters it later is loaded then; one that leaves it is updated a last time.
        start_date: The oldest `created_at` to load, included. Without a time zone it is UTC.
        end_date: The `created_at` to load up to, not included. It makes the run a window: read
            again each time, with a state of its own that is not kept.
        page_size: Jobs per request, 1 to 100. Pages overlap, so the smallest ones are a little
            larger.
        max_connections: Requests that may be in flight at the same time.
        keep_signed_urls: Store links with their query strings, which are credentials.
        requests_per_minute: A limit to keep. By default requests are as fast as the API answers;
            when it reports that its own limit is reached, the source waits for the next minute.
        table_format: `delta` or `iceberg`, for the destination `filesystem`: dlt can't merge into
            plain files, so each run would duplicate its rows.
        trust_account: Load even if none of the jobs that were loaded before is listed any more.
            Without it a run then raises `SettingsError`: the key belongs to another account, or
            the whole history was deleted.

    Returns:
        The source, with the resources `jobs`, `rejected_jobs`, `removed_jobs` and `runs`. One
        reading of the account feeds all four: select `jobs` with the others.

    Raises:
        SettingsError: A setting is missing or has a value that is not allowed. While the account
            is read, the source raises this and the other errors of `convertly_source.errors`.

    Source: "List jobs" (`GET /api/jobs`) of the API reference.
    """
    check_choice("status", status, STATUSES)
    check_choice("table_format", table_format, TABLE_FORMATS)
    check_number("page_size", page_size, 1, LARGEST_PAGE)
    start, end = parse_window(start_date, end_date)
    client = connect(api_key, base_url, auth_method, max_connections, requests_per_minute)

    naming = type(dlt.current.source_schema().naming)(LONGEST_NAME).normalize_identifier
    mapper = RecordMapper(naming, keep_signed_urls=keep_signed_urls)

    def new_run(state: RunState, window: tuple[datetime, datetime]) -> IncrementalRun:
        listing = Listing(client, page_size, max_connections)
        make_run = MAKE_RUN.get()
        return make_run(listing, status, state, window, trust_account=trust_account)

    reader = AccountReader(client, mapper, new_run, status, table_format)
    window = Created("created_at", initial_value=start, end_value=end)

    def jobs(created_at: Created = window) -> Iterator[Any]:
        yield from reader.read(created_at)

    resources = list[DltResource]()
    for table, rows, key in (
        ("jobs", jobs, "id"),
        ("rejected_jobs", reader.side_table("rejected_jobs"), "fingerprint"),
        ("removed_jobs", reader.side_table("removed_jobs"), "id"),
        ("runs", reader.side_table("runs"), "run_id"),
    ):
        meaning, columns = TABLES[table]
        resource = dlt.resource(rows, name=table)
        resource.apply_hints(
            columns=columns,
            primary_key=key,
            write_disposition="merge",
            table_format=table_format,
            references=REFERENCES.get(table),
            additional_table_hints={"description": meaning, **HINTS.get(table, {})},
        )
        resources.append(resource)
    resources[0].apply_hints(nested_hints=_nested_hints([]))
    resources[0].custom_metrics["host"] = client.host
    resources[0].custom_metrics["is_whole"] = not (status or start or end)
    return resources


class Feed:
    """What passes between the resources of one source during one extract."""

    def __init__(self, source_state: object) -> None:
        self.source_state = source_state  # dlt makes a new one for each extract
        self.readers = 0  # that have not come to their end
        self.was_read = False
        self.side_states: dict[str, dict[str, Any]] = {}  # of the side tables that are selected
        self.side_rows = defaultdict[str, list[dict[str, Any]]](list)

    def add(self, table: str, rows: list[dict[str, Any]]) -> int:
        """Add rows of a side table, if it is selected; return how many are new in it."""
        if table not in self.side_states:
            return 0
        new = _not_recorded(table, rows, self.side_states[table])
        self.side_rows[table] += new
        return len(new)


class StartedRun(NamedTuple):
    """A run, and what its row of `runs` is made of."""

    run: IncrementalRun
    started_at: datetime
    requests_before: int
    counts: Counter[str]  # of what it has found


class AccountReader:
    """Reads an account for the resource `jobs`, and keeps the rows of the side tables for theirs.

    `jobs` reads in as many extracts as its runs take: `add_limit` ends an extract between two
    pages, and the next one continues the same run if the state that the first one left was
    loaded. In each extract the side tables wait until `jobs` has stopped, and then yield all their
    rows at once. While they wait they yield None, which dlt passes over; so it doesn't matter in
    which order dlt asks the resources.
    """

    def __init__(
        self,
        client: JobsClient,
        mapper: RecordMapper,
        new_run: Callable[[RunState, tuple[datetime, datetime]], IncrementalRun],
        status: str | None,
        table_format: str | None,
    ) -> None:
        self._client = client
        self._mapper = mapper
        self._new_run = new_run
        self._status = status
        self._table_format = table_format
        self._stopped: dict[object, StartedRun] = {}
        self._current_feed = Feed(None)

    def read(self, created_at: Created) -> Iterator[Any]:
        """Yield rows of `jobs`, and keep the state of the run in that of the resource."""
        if _destination_type() == "filesystem":
            self._check_table_format()
        feed = self._feed()
        feed.readers += 1
        feed.was_read = True
        try:
            yield None  # the side tables begin to wait
            yield from self._read(created_at, feed)
        finally:
            feed.readers -= 1

    def _check_table_format(self) -> None:
        if not self._table_format:
            raise SettingsError(
                "dlt can't merge into plain files, so each run would duplicate its rows.",
                f"Set table_format to one of: {', '.join(TABLE_FORMATS)}.",
                setting="table_format",
            )
        # It names the extra if one is missing.
        import_module(f"dlt.common.libs.{TABLE_FORMATS[self._table_format]}")

    def side_table(self, table: str) -> Callable[[], Iterator[Any]]:
        """Return the generator of a table that is filled by the reading of `jobs`."""

        def rows() -> Iterator[Any]:
            feed = self._feed()
            feed.side_states[table] = dlt.current.resource_state()
            yield None  # the reading begins
            if not feed.was_read:
                raise SettingsError(
                    f"The resource {table} is filled by the reading of jobs.",
                    f'Select both: source.with_resources("jobs", "{table}").',
                )
            while feed.readers:
                yield None
            if found := feed.side_rows.pop(table, None):
                hints = dlt.mark.make_hints(file_format=_file_format(len(found)))
                yield dlt.mark.with_hints(found, hints)
            else:
                yield _empty_table()

        return rows

    def _feed(self) -> Feed:
        source_state = dlt.current.source_state()
        if self._current_feed.source_state is not source_state:
            self._current_feed = Feed(source_state)
        return self._current_feed

    def _read(self, created_at: Created, feed: Feed) -> Iterator[Any]:
        window = created_at.initial_value or BEGINNING, created_at.end_value or END
        states = dlt.current.resource_state()
        states["host"] = self._client.host  # two accounts in one dataset would spoil each other
        scope = "window" if created_at.end_value else self._status or "all"
        started = self._stopped.pop(_resume_point(window, states.get(scope, {})), None)
        if scope == "window" and not started:
            states.pop(scope, None)  # an interrupted window starts over
        state: RunState = states.setdefault(scope, {})
        if not state:
            state.update(new_state())
        _check_state(state)
        self._mapper.restore_columns(_stored_columns())
        state["landmarks"] = states.get("landmarks", [])  # all ways to load know the account
        started = started or self._start(state, window)
        run = started.run
        metrics = dlt.current.resource_metrics()
        metrics["is_complete"] = False
        # The run reads exactly this range, so dlt filters no rows by it.
        created_at.advance(state["cursor"])  # type: ignore[arg-type]  # None is allowed
        try:
            yield from self._rows(started, feed)
        except GeneratorExit:
            self._stopped[_resume_point(window, run.state)] = started
            raise
        finally:
            state.update(run.state)
            if scope != "window":
                states["landmarks"] = state["landmarks"]
            created_at.advance(state["cursor"])  # type: ignore[arg-type]  # None is allowed
        state["jobs_read"] = 0
        if scope == "window":
            del states[scope]
        kind = "window" if scope == "window" else metrics.get("kind", "load")
        has_count = scope == "all" and not state["start"]
        metrics["last_run"] = self._run_record(started, kind, has_count=has_count)
        feed.add("runs", [metrics["last_run"]])
        metrics["is_complete"] = True
        yield _empty_table()

    def _start(self, state: RunState, window: tuple[datetime, datetime]) -> StartedRun:
        started_at, requests = datetime.now(timezone.utc), self._client.requests
        return StartedRun(self._new_run(state, window), started_at, requests, Counter())

    def _run_record(self, started: StartedRun, kind: str, *, has_count: bool) -> dict[str, Any]:
        """Return the row of `runs` for a run that has come to its end."""
        counts, run = started.counts, started.run
        return {
            "run_id": uniq_id(),
            "kind": kind,
            "started_at": started.started_at,
            "finished_at": datetime.now(timezone.utc),
            "listed": run.listed,
            "held": run.held if has_count else None,
            "jobs_loaded": counts["jobs"],
            "results_loaded": counts["jobs__results"],
            "rejected": counts["rejected_jobs"],
            "removed": counts["removed_jobs"],
            "open_jobs": run.open_jobs,
            "requests": self._client.requests - started.requests_before,
        }

    def _rows(self, started: StartedRun, feed: Feed) -> Iterator[Any]:
        """Yield what a run finds as rows of `jobs`, with hints when there are new columns."""
        run, counts = started.run, started.counts
        show_progress = _progress()
        columns_hinted = None
        for changes in run.changes:
            show_progress("Jobs read", changes.jobs_read, run.expected)
            rows = dict(self._mapper.tables(changes))
            for table in ("rejected_jobs", "removed_jobs"):
                counts[table] += feed.add(table, rows[table])
            counts["jobs"] += len(rows["jobs"])
            counts["jobs__results"] += sum(len(job["results"]) for job in rows["jobs"])
            if rows["jobs"] and columns_hinted == self._mapper.new_column_count:
                yield rows["jobs"]
            elif rows["jobs"]:
                columns_hinted = self._mapper.new_column_count
                hints = self._hints(_file_format(run.expected + run.open_jobs))
                yield dlt.mark.with_hints(rows["jobs"], hints)

    def _hints(self, file_format: FileFormat) -> TResourceHints:
        """Return the hints of the table `jobs`, and of its columns that are not documented."""
        new = self._mapper.new_columns()
        return dlt.mark.make_hints(
            columns=new["jobs"] or None,
            file_format=file_format,
            nested_hints=_nested_hints(new["jobs__results"]),
        )


def _nested_hints(new_columns: list[TColumnSchema]) -> dict[Any, TResourceNestedHints]:
    """Return the hints of `jobs__results`, with columns that are not documented."""
    hints = dlt.mark.make_hints(
        columns=[*RESULT_COLUMNS.values(), *new_columns],
        references=REFERENCES["jobs__results"],
        additional_table_hints={"description": TABLES["jobs__results"][0]},
    )
    return {"results": hints}


def _resume_point(window: object, state: Any) -> object:
    """Identify where a stopped run continues: only from the state that was loaded."""
    return window, state.get("cursor"), state.get("jobs_read")


def _check_state(state: RunState) -> None:
    if state.keys() != new_state().keys():
        raise SettingsError(
            "The saved state is from an incompatible version of convertly-source.",
            'Load everything again, once: pipeline.run(source, refresh="drop_sources").',
            setting="state",
        )


def _not_recorded(
    table: str, rows: list[dict[str, Any]], state: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a side table that no earlier run has recorded; note them as recorded."""
    if table != "rejected_jobs":
        return rows
    recorded: list[str] = state.setdefault("recorded", [])
    new = {row["fingerprint"]: row for row in rows if row["fingerprint"] not in recorded}
    recorded.extend(new)
    return list(new.values())


def _empty_table() -> Any:
    """Return the item that makes the table of the running resource, None if it is there.

    Where a merge is an upsert (Delta, Iceberg), dlt would hash the key of an empty row; so there
    the table goes into the schema as one that has had rows.
    """
    schema = dlt.current.source_schema()
    table = dlt.current.resource().compute_table_schema()
    name = schema.naming.normalize_tables_path(str(table["name"]))
    if has_table_seen_data(schema.tables.get(name, {})):
        return None
    if table.get("table_format") in TABLE_FORMATS:
        for column in ("_dlt_id", "_dlt_load_id"):
            table["columns"][column] = {"name": column, "data_type": "text", "nullable": False}
        schema.update_table({**table, "name": name, "x-normalizer": {"seen-data": True}})
    return dlt.mark.materialize_table_schema()


def _file_format(rows: int) -> FileFormat:
    """Return the format of load files that will hold up to `rows` rows.

    DuckDB reads Parquet far faster than dlt's INSERTs, but writing it imports pyarrow, which takes
    45 MB: small loads do without it.
    """
    is_duckdb = _destination_type() in ("duckdb", "motherduck")
    return "parquet" if is_duckdb and rows > MAX_INSERTED_ROWS else "preferred"


def _stored_columns() -> dict[str, dict[str, TDataType]]:
    """Return the columns that the pipeline's tables have from earlier runs, with their types."""
    return {
        table: {
            name: data_type
            for name, column in stored["columns"].items()
            if (data_type := column.get("data_type")) and not name.startswith("_dlt_")
        }
        for table, stored in dlt.current.source_schema().tables.items()
    }


def _progress() -> Callable[..., None]:
    """Return the active pipeline's progress collector, or a no-op one."""
    context = Container()[PipelineContext]
    return context.pipeline().collector.update if context.is_active() else NULL_COLLECTOR.update


def _destination_type() -> str:
    """Return the type of the active pipeline's destination, empty without one."""
    context = Container()[PipelineContext]
    destination = context.pipeline().destination if context.is_active() else None
    return destination.destination_type.rpartition(".")[2] if destination else ""
