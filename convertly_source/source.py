"""The dlt source: settings in, resources out."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

import dlt
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.typing import TAnyDateTime, TSecretStrValue
from dlt.extract import DltResource
from dlt.extract.hints import TResourceHints

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
from convertly_source.tables.schema import (
    JOB_COLUMNS,
    REJECTED_COLUMNS,
    REMOVED_COLUMNS,
    RESULT_COLUMNS,
)

LONGEST_NAME = 63  # dlt names files after columns that hold lists

Created = dlt.sources.incremental[datetime]


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
) -> DltResource:
    """Load the jobs of a Convertly account, as they are at the time of each run.

    The tables are `jobs`, its child `jobs__results`, `rejected_jobs` (jobs that can't be stored)
    and `removed_jobs` (unfinished jobs that are no longer listed). Each setting may also come
    from dlt's configuration, `[sources.convertly]`.

    Args:
        api_key: A key of the workspace. Without one, `CONVERTLY_API_KEY` is taken.
        base_url: Where the API is. When it is the default, `CONVERTLY_BASE_URL` goes before it.
        auth_method: How the key is sent: `Authorization: Bearer`, or the header `x-api-key`.
        status: Load only jobs in this status: `pending`, `processing`, `completed`, `failed`.
            One that enters it later is loaded then; one that leaves it is updated a last time.
        start_date: The oldest `created_at` to load, included. Without a time zone it is UTC.
        end_date: The `created_at` to load up to, not included. It makes the run a window: read
            again each time, apart from the cursor and the followed jobs of the other runs.
        page_size: Jobs to ask for in a request, 1 to 100 (2 at least are: pages overlap).
        max_connections: Requests that may be under way at the same time.
        keep_signed_urls: Store links with their query strings, which are credentials.
        requests_per_minute: Ask no more often than that. By default, as fast as the API answers;
            where it says that the limit of a minute is reached, the minute is waited for.
        table_format: `delta` or `iceberg`, for the destination `filesystem`: plain files can't be
            merged into, so that each run would double its rows.

    Raises:
        SettingsError: A setting is missing or wrong. While it is read, the source raises this and
            the other errors of `convertly_source.errors`.

    Source: "List jobs" (`GET /api/jobs`) of the API reference.
    """
    check_choice("status", status, STATUSES)
    check_choice("table_format", table_format, TABLE_FORMATS)
    check_number("page_size", page_size, 1, LARGEST_PAGE)
    check_number("max_connections", max_connections, 1)
    check_number("requests_per_minute", requests_per_minute or 0, 0)
    start, end = parse_window(start_date, end_date)
    client = connect(api_key, base_url, auth_method, max_connections, requests_per_minute)

    schema = dlt.current.source_schema()
    # A text that looks like a time would make a column that refuses the next text.
    schema.remove_type_detection("iso_timestamp")
    naming = type(schema.naming)(LONGEST_NAME).normalize_identifier
    mapper = RecordMapper(naming, keep_signed_urls=keep_signed_urls)

    def new_run(state: RunState, window: tuple[datetime, datetime]) -> IncrementalRun:
        return IncrementalRun(Listing(client, page_size, max_connections), status, state, window)

    reader = AccountReader(client, mapper, new_run, status, can_merge=bool(table_format))
    window = Created("created_at", initial_value=start, end_value=end)

    def jobs(created_at: Created = window) -> Iterator[Any]:
        yield from reader.read(created_at)

    resource = dlt.resource(jobs, name="jobs")
    for table, columns, key in (
        ("rejected_jobs", REJECTED_COLUMNS, "fingerprint"),
        ("removed_jobs", REMOVED_COLUMNS, "id"),
        (None, JOB_COLUMNS, "id"),
    ):
        resource.apply_hints(
            table_name=table,
            columns=columns,
            primary_key=key,
            write_disposition="merge",
            table_format=table_format,
            create_table_variant=table is not None,
        )
    results = dlt.mark.make_nested_hints(columns=list(RESULT_COLUMNS.values()))
    resource.apply_hints(nested_hints={"results": results})
    resource.custom_metrics["host"] = client.host
    return resource


class AccountReader:
    """Reads an account for the resource `jobs`, in as many extracts as its runs take.

    `add_limit` ends an extract between two pages; the next one then continues the same run, if
    the state that the first one left was loaded.
    """

    def __init__(
        self,
        client: JobsClient,
        mapper: RecordMapper,
        new_run: Callable[[RunState, tuple[datetime, datetime]], IncrementalRun],
        status: str | None,
        *,
        can_merge: bool,
    ) -> None:
        self._client, self._mapper, self._new_run = client, mapper, new_run
        self._status, self._can_merge = status, can_merge
        self._stopped: dict[object, IncrementalRun] = {}

    def read(self, created_at: Created) -> Iterator[Any]:
        """Yield rows for dlt, and keep the state of the run in that of the resource."""
        window = created_at.initial_value or BEGINNING, created_at.end_value or END
        state = self._state("window" if created_at.end_value else self._status or "all")
        stopped = self._stopped.pop(_resume_point(window, state), None)
        is_first = stopped is None and (bool(created_at.end_value) or not state)
        if is_first:
            state.update(new_state())
        _check_state(state)
        run = stopped or self._new_run(state, window)
        states = dlt.current.resource_state()
        recorded: list[str] = [] if created_at.end_value else states.setdefault("rejected", [])
        metrics = dlt.current.resource_metrics()
        metrics["is_complete"] = False
        # The run reads exactly this range, so dlt filters no rows by it.
        created_at.advance(state["cursor"])  # type: ignore[arg-type]  # None is allowed
        try:
            for rows in self._rows(run, recorded):
                is_first = False
                yield rows
        except GeneratorExit:
            self._stopped[_resume_point(window, run.state)] = run
            raise
        finally:
            state.update(run.state)
            created_at.advance(state["cursor"])  # type: ignore[arg-type]  # None is allowed
        state["jobs_read"] = 0
        if created_at.end_value:
            del dlt.current.resource_state()["window"]
        metrics["is_complete"] = True
        if is_first:
            yield dlt.mark.materialize_table_schema()

    def _state(self, name: str) -> RunState:
        """Return the state that the last run left, empty before the first one."""
        states = dlt.current.resource_state()
        states["host"] = self._client.host  # two accounts in one dataset would spoil each other
        state: RunState = states.setdefault(name, {})
        return state

    def _rows(self, run: IncrementalRun, recorded: list[str]) -> Iterator[Any]:
        """Yield what a run finds as rows of tables, each table's first ones with its hints."""
        hints = {"jobs": _load_files(can_merge=self._can_merge)}
        show_progress = _progress()
        for changes in run.changes:
            show_progress("Jobs read", changes.jobs_read, run.expected)
            for table, rows in self._mapper.tables(changes):
                new = _not_recorded(rows, recorded) if table == "rejected_jobs" else rows
                if new:
                    yield _marked(table, new, hints.pop(table, None))


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


def _not_recorded(rejected: list[dict[str, Any]], recorded: list[str]) -> list[dict[str, Any]]:
    """Return the rows that no earlier run has recorded, and note that they are recorded now."""
    new = {row["fingerprint"]: row for row in rejected if row["fingerprint"] not in recorded}
    recorded.extend(new)
    return list(new.values())


def _load_files(*, can_merge: bool) -> TResourceHints:
    """Choose the format of load files: DuckDB reads Parquet far faster than dlt's INSERTs."""
    destination = _destination_type()
    if destination == "filesystem" and not can_merge:
        raise SettingsError(
            "dlt can't merge into plain files, so each run would duplicate its rows.",
            f"Set table_format to one of: {', '.join(TABLE_FORMATS)}.",
            setting="table_format",
        )
    is_duckdb = destination in ("duckdb", "motherduck")
    return dlt.mark.make_hints(file_format="parquet" if is_duckdb else "preferred")


def _marked(table: str, rows: list[dict[str, Any]], hints: TResourceHints | None) -> Any:
    if hints:  # with its first rows a table is made
        return dlt.mark.with_hints(rows, hints)
    return dlt.mark.with_table_name(rows, table)


def _progress() -> Callable[..., None]:
    """Return the active pipeline's progress collector, or a no-op one."""
    context = Container()[PipelineContext]
    return context.pipeline().collector.update if context.is_active() else NULL_COLLECTOR.update


def _destination_type() -> str:
    """Return the type of the active pipeline's destination, empty without one."""
    context = Container()[PipelineContext]
    destination = context.pipeline().destination if context.is_active() else None
    return destination.destination_type.rpartition(".")[2] if destination else ""
