"""A history in windows: half-open ranges of `created_at`, each of them a load of its own.

A destination that takes several writers can take several windows at once. What they would share
is kept apart: each has a staging dataset of its own, which it drops, and leaves no state behind.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, time, timedelta, timezone
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dlt
from dlt.common.configuration import with_config
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.typing import TAnyDateTime

from convertly_source.api.client import FINAL_STATUSES
from convertly_source.errors import ResponseError, SettingsError
from convertly_source.loading.loads import (
    load_in_chunks,
    pipeline_into,
    refuse_other_account,
    restore_schema,
)
from convertly_source.reading.job import BEGINNING
from convertly_source.reading.listing import Listing
from convertly_source.reading.run import LAG
from convertly_source.settings import LARGEST_PAGE, connect, parse_timestamp
from convertly_source.source import convertly_source

ONE_WRITER = ("duckdb", "ducklake", "sqlalchemy")
SHORTEST = timedelta(minutes=1)
UTC = timezone.utc


class Window(NamedTuple):
    """The jobs with `start` <= `created_at` < `end`."""

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        """A name of digits, another one for each window of a history."""
        return "_".join(f"{moment.astimezone(UTC):%y%m%d%H%M%S}" for moment in self)


def window(start: str, end: str) -> Window:
    """Read a window of two texts."""
    return Window(datetime.fromisoformat(start), datetime.fromisoformat(end))


NO_JOBS = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC))


class Place(NamedTuple):
    """Where the tables are, and the arguments of the source that are not in dlt's settings."""

    destination: str
    dataset: str
    settings: dict[str, Any]

    @contextmanager
    def pipeline(self, progress: Collector = NULL_COLLECTOR, **how: Any) -> Iterator[dlt.Pipeline]:
        """Make a pipeline that is gone afterwards, and writes no state."""
        with TemporaryDirectory() as folder:
            pipeline = pipeline_into(self.destination, self.dataset, folder, progress, **how)
            pipeline.config.restore_from_destination = False
            yield pipeline

    def listing(self) -> Listing:
        """Look at the account."""
        client = with_config(connect, sections=("sources", "convertly"))(**self.settings)
        return Listing(client, LARGEST_PAGE, max_connections=1)


class Handover(NamedTuple):
    """What is loaded of a history, and how ordinary runs take over."""

    jobs: int
    start_date: datetime  # an ordinary run from here on follows all that may still change


def tiles(whole: Window, days: float) -> list[Window]:
    """Cut a window into windows of so many days, without gap or overlap; the last is clipped."""
    step = timedelta(days=days)
    if step < SHORTEST:
        raise SettingsError(f"A window can't have {days} days.", "Give it a minute at least.")
    count = -((whole.start - whole.end) // step)
    starts = [whole.start + number * step for number in range(count)]
    return [Window(*ends) for ends in zip(starts, [*starts[1:], whole.end], strict=True)]


def plan(
    place: Place, start: TAnyDateTime | None, end: TAnyDateTime | None, days: float
) -> list[Window]:
    """Cut the history into windows, and make the tables, so that windows can be loaded at once.

    Without `start` it begins with the day of the oldest job, without `end` it ends behind the
    newest. Raises `SettingsError` when it can't be loaded in windows.
    """
    if place.destination == "filesystem":
        raise SettingsError(
            "A lake can't be asked how many jobs it has.", "Load it with ordinary runs instead."
        )
    listing = place.listing()
    if not listing.is_ordered:
        raise SettingsError(
            "The API lists jobs in no order of age: each window would read all of them.",
            "Load them with an ordinary run, which reads them once.",
        )
    oldest = listing.search(BEGINNING).oldest.date() if listing.total else NO_JOBS.start.date()
    whole = Window(
        parse_timestamp("start", start) or datetime.combine(oldest, time(), UTC),
        parse_timestamp("end", end)
        or max(listing.newest_page.youngest, NO_JOBS.start) + timedelta.resolution,
    )
    if whole.start >= whole.end:
        raise SettingsError(f"end can't be {whole.end}.", f"It must be after {whole.start}.")
    windows = tiles(whole, days)
    _make_tables(place)
    return windows


def load(window: Window, place: Place, progress: Collector = NULL_COLLECTOR) -> Counter[str]:
    """Load the jobs of a window as they are now; count the rows by table."""
    source = convertly_source(start_date=window.start, end_date=window.end, **place.settings)
    layout = f"%s_staging_{window.name}"
    with place.pipeline(progress, staging_dataset_name_layout=layout) as pipeline:
        restore_schema(pipeline)
        try:
            return load_in_chunks(pipeline, source)
        finally:
            _drop_staging(pipeline)


def finish(whole: Window, place: Place) -> Handover:
    """Compare the loaded history with the account, and leave one schema for all windows.

    Raises `ResponseError` when jobs of the account are not in the warehouse.
    """
    with place.pipeline() as pipeline:
        if restore_schema(pipeline):
            pipeline.sync_schema()
        listed, jobs = count_listed(place.listing(), whole), count_loaded(pipeline, whole)
        if jobs < listed:
            raise ResponseError(
                f"The API lists {listed:,} jobs from {whole.start} to {whole.end}, "
                f"{jobs:,} of them are in the warehouse.",
                "Load them again; if it stays, report it to the maintainers of convertly-source.",
            )
        return Handover(jobs, min(whole.end - LAG, _oldest_open(pipeline, whole)))


def count_listed(listing: Listing, window: Window) -> int:
    """Count the account's jobs of a window, by their positions.

    Both numbers are of the jobs before a moment, so jobs that are created meanwhile are in
    neither, and one that vanishes between makes the count smaller, not greater.
    """
    start, end = (_count_before(listing, age) for age in window)
    return end - start


def count_loaded(pipeline: dlt.Pipeline, window: Window) -> int:
    """Count the jobs of a window in the warehouse, and those that could not be stored."""
    within = "SELECT count(*) FROM {} WHERE created_at >= %s AND created_at < %s"
    rejected = "SELECT count(*) FROM {}"
    counts = _ask(pipeline, within, "jobs", *window), _ask(pipeline, rejected, "rejected_jobs")
    return sum(count or 0 for count in counts)


def _count_before(listing: Listing, age: datetime) -> int:
    return listing.search(age).count_before(age)


def _oldest_open(pipeline: dlt.Pipeline, window: Window) -> datetime:
    ended = ", ".join(f"'{status}'" for status in FINAL_STATUSES)
    sql = f"SELECT min(created_at) FROM {{}} WHERE NOT coalesce(status, '') IN ({ended})"  # noqa: S608
    oldest = _ask(pipeline, f"{sql} AND created_at >= %s", "jobs", window.start)
    return ensure_datetime_in_tz(oldest, UTC) if oldest else window.end


def _ask(pipeline: dlt.Pipeline, sql: str, table: str, *values: Any) -> Any:
    """Ask the warehouse for one value; None when the table is not there yet."""
    with pipeline.sql_client() as client, suppress(DestinationUndefinedEntity):
        rows = client.execute_sql(sql.format(client.make_qualified_table_name(table)), *values)
        return rows[0][0] if rows else None


def _make_tables(place: Place) -> None:
    """Make the tables, unless they are there; refuse another account than theirs."""
    source = convertly_source(**place.settings)
    with place.pipeline() as pipeline:
        pipeline.sync_destination()
        refuse_other_account(pipeline, source.resources["jobs"].custom_metrics["host"])
        is_new = not restore_schema(pipeline)
    if is_new:
        load(NO_JOBS, place)


def _drop_staging(pipeline: dlt.Pipeline) -> None:
    client: Any = pipeline.destination_client()
    with client, client.with_staging_dataset():
        if client.is_storage_initialized():
            client.sql_client.drop_dataset()
