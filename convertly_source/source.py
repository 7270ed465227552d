"""The dlt source: its settings, and the tables it fills."""

import os
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from typing import Any, Literal

import dlt
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.extract.hints import TResourceHints

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, JobsClient
from convertly_source.errors import SettingsError
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import BEGINNING, END
from convertly_source.reading.run import Batch, Memory, Run, new_memory
from convertly_source.tables.records import Shape
from convertly_source.tables.schema import (
    JOB_COLUMNS,
    REJECTED_COLUMNS,
    REMOVED_COLUMNS,
    RESULT_COLUMNS,
)

BASE_URL = "https://convertly.sh"
LARGEST_PAGE = 100
TABLE_FORMATS = ("delta", "iceberg")
WRITER = {"disable_compression": True, "buffer_max_items": 500}  # less CPU and memory a load
LONGEST_NAME = 63  # dlt names files after columns that hold lists

Moment = str | date | datetime


@dlt.source(name="convertly", section="convertly")
def convertly_source(
    api_key: TSecretStrValue | None = dlt.secrets.value,
    base_url: str = BASE_URL,
    auth_method: Literal["bearer", "x-api-key"] = "bearer",
    status: str | None = None,
    start_date: Moment | None = None,
    end_date: Moment | None = None,
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
    for name, value, is_good in (
        ("status", status, status in (None, *OPEN_STATUSES, *FINAL_STATUSES)),
        ("page_size", page_size, 1 <= page_size <= LARGEST_PAGE),
        ("max_connections", max_connections, max_connections >= 1),
        ("requests_per_minute", requests_per_minute, (requests_per_minute or 1) > 0),
        ("table_format", table_format, table_format in (None, *TABLE_FORMATS)),
    ):
        if not is_good:
            raise _bad(name, value)
    _tune_writer()
    start, end = _window(start_date, end_date)
    schema = dlt.current.source_schema()
    # A text that looks like a time would make a column that refuses the next text.
    schema.remove_type_detection("iso_timestamp")
    naming = type(schema.naming)(LONGEST_NAME).normalize_identifier
    client = connect(api_key, base_url, auth_method, max_connections, requests_per_minute)
    record = Shape(naming, keep_signed_urls=keep_signed_urls).job_record

    def new_run(memory: Memory, window: tuple[datetime, datetime]) -> Run:
        listing = Listing(client, page_size, max_connections)
        return Run(listing, record, status, memory, window)

    created_at = dlt.sources.incremental[datetime]("created_at", initial_value=start, end_value=end)
    jobs = _jobs(new_run, created_at, status, client.host, can_merge=bool(table_format))
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


def connect(
    api_key: TSecretStrValue | None = dlt.secrets.value,
    base_url: str = BASE_URL,
    auth_method: Literal["bearer", "x-api-key"] = "bearer",
    max_connections: int = 4,
    requests_per_minute: float | None = None,
) -> JobsClient:
    """Make the client of `convertly_source()`, by the same settings.

    Raises `SettingsError` when there is no key, or a setting can't be.
    """
    api_key = api_key or os.environ.get("CONVERTLY_API_KEY")
    if base_url == BASE_URL:
        base_url = os.environ.get("CONVERTLY_BASE_URL") or BASE_URL
    if not api_key:
        raise SettingsError(
            "There is no API key.",
            "Set CONVERTLY_API_KEY to a key of your Convertly dashboard, or try --demo.",
        )
    return JobsClient(api_key, base_url, auth_method, max_connections, requests_per_minute)


def _jobs(
    new_run: Callable[[Memory, tuple[datetime, datetime]], Run],
    incremental: dlt.sources.incremental[datetime],
    status: str | None,
    account: str,
    *,
    can_merge: bool,
) -> Callable[..., Iterator[Any]]:
    stopped: dict[object, Run] = {}  # by add_limit, between two batches

    def jobs(created_at: dlt.sources.incremental[datetime] = incremental) -> Iterator[Any]:
        hints = {"jobs": _load_files(can_merge=can_merge)}
        window = (created_at.initial_value or BEGINNING, created_at.end_value or END)
        state = dlt.current.resource_state()
        state["host"] = account  # two accounts in one dataset would spoil each other
        name = "window" if created_at.end_value else status or "any status"
        memory = state.setdefault(name, {})
        run = stopped.pop(_place(window, memory), None)
        is_first = run is None and (name == "window" or not memory)
        if is_first:
            memory.update(new_memory())
        if memory.keys() != new_memory().keys():
            raise SettingsError(
                "The tables were loaded by a version that remembered other things.",
                'Load them anew, once: --full-refresh, or pipeline.run(refresh="drop_sources").',
            )
        metrics = dlt.current.resource_metrics()
        metrics["is_complete"] = False
        run, show_progress = run or new_run(memory, window), _progress()
        # The range is read exactly, so no rows are filtered behind it.
        created_at.advance(memory["cursor"])
        try:
            for batch in run.batches:
                show_progress("Jobs read", batch.read, run.listing.expected)
                if batch.rows:
                    is_first = False
                    yield _marked(batch, hints.pop(batch.table, None))
        except GeneratorExit:
            stopped[_place(window, run.memory)] = run
            raise
        finally:
            memory.update(run.memory)
            created_at.advance(memory["cursor"])
        memory["read"] = 0
        if name == "window":
            del state[name]
        metrics["is_complete"] = True
        if is_first:
            yield dlt.mark.materialize_table_schema()

    return jobs


def _bad(name: str, value: object) -> SettingsError:
    return SettingsError(f"{name} can't be {value!r}.", f"Correct {name}; --help has the values.")


def _window(start: Moment | None, end: Moment | None) -> tuple[datetime | None, datetime | None]:
    """Read the bounds of the window; without a start it begins with the first job."""
    since, until = moment("start_date", start), moment("end_date", end)
    if until:
        since = since or datetime(1970, 1, 1, tzinfo=timezone.utc)
        if since >= until:
            raise _bad("end_date", end)
    return since, until


def moment(name: str, value: Moment | None) -> datetime | None:
    """Read a moment; raise `SettingsError`, which names it, when it can't be read."""
    try:
        return None if value is None else ensure_datetime_in_tz(value, timezone.utc)
    except (ValueError, OverflowError, TypeError) as error:
        raise _bad(name, value) from error


def _place(window: object, memory: Any) -> object:
    """Name the place where a stopped run can go on: it fits the state that was committed."""
    return window, memory.get("cursor"), memory.get("read")


def _load_files(*, can_merge: bool) -> TResourceHints:
    """Choose the format of load files: DuckDB reads Parquet far faster than dlt's INSERTs."""
    destination = _destination_type()
    if destination == "filesystem" and not can_merge:
        raise SettingsError(
            "Plain files can't be merged into: each run would double its rows.",
            'Set table_format="delta" (or "iceberg"): --table-format, or an argument.',
        )
    is_duckdb = destination in ("duckdb", "motherduck")
    return dlt.mark.make_hints(file_format="parquet" if is_duckdb else "preferred")


def _marked(batch: Batch, hints: TResourceHints | None) -> Any:
    if hints:  # with its first batch a table is made
        return dlt.mark.with_hints(batch.rows, hints)
    return dlt.mark.with_table_name(batch.rows, batch.table)


def _tune_writer() -> None:
    """Write the files of this source, which live for seconds, unpacked and in small pieces."""
    for name, value in WRITER.items():
        own = f"sources.convertly.data_writer.{name}"
        places = (own, f"sources.data_writer.{name}", f"data_writer.{name}")
        if all(dlt.config.get(place) is None for place in places):
            dlt.config[own] = value


def _progress() -> Callable[..., None]:
    """Find what shows the progress of the pipeline that runs, if one does."""
    context = Container()[PipelineContext]
    return context.pipeline().collector.update if context.is_active() else NULL_COLLECTOR.update


def _destination_type() -> str:
    """Name the kind of destination of the pipeline that runs, if one does."""
    context = Container()[PipelineContext]
    destination = context.pipeline().destination if context.is_active() else None
    return destination.destination_type.rpartition(".")[2] if destination else ""
