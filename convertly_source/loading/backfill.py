"""A history in windows: half-open ranges of `created_at`, each of them a load of its own.

A destination that takes several writers can take several windows at once. What they would share
is kept apart: each has a staging dataset of its own, which it drops, and leaves no state behind.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dlt
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.typing import TAnyDateTime

from convertly_source.api.client import FINAL_STATUSES
from convertly_source.errors import ResponseError, SettingsError
from convertly_source.loading.load import load_in_chunks
from convertly_source.loading.locks import database_lock, file_lock
from convertly_source.loading.refused import without_failures_in_the_log
from convertly_source.loading.state import refuse_other_account
from convertly_source.loading.target import (
    Target,
    count_rows,
    describe,
    drop_staging,
    is_lake,
    open_client,
    refuse_ambiguous_name,
    refuse_naming,
    restore_schema,
    select_value,
    using,
    working_folder,
)
from convertly_source.loading.warehouse import forget_relisted, known_landmarks
from convertly_source.reading.job import BEGINNING, LAG
from convertly_source.reading.landmarks import check_account
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import DisorderError
from convertly_source.settings import Reading, configured, connect, invalid, parse_timestamp
from convertly_source.source import convertly_source
from convertly_source.tables.schema import TABLES

NAME = "convertly_backfill"  # of the pipeline whose folder has the checkpoints
ONE_WRITER = ("duckdb", "ducklake", "sqlalchemy")
DAY = timedelta(days=1)
SHORTEST = timedelta(minutes=1)
UTC = timezone.utc

SourceSettings = dict[str, Any]  # arguments of the source that are not in dlt's configuration


class Window(NamedTuple):
    """The jobs with `start` <= `created_at` < `end`."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, start: str, end: str) -> "Window":
        """Return the window between two ISO timestamps."""
        return cls(datetime.fromisoformat(start), datetime.fromisoformat(end))

    @property
    def name(self) -> str:
        """A name of digits and underscores, another one for each window of a history."""
        return "_".join(f"{timestamp.astimezone(UTC):%y%m%d%H%M%S}" for timestamp in self)


NO_JOBS = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC))


class BackfillResult(NamedTuple):
    """What is loaded of a history, and how ordinary runs continue."""

    jobs: int
    start_date: datetime  # an ordinary run from here on follows all that may still change


class Checkpoint:
    """How far a backfill has come, in dlt's folder of pipelines, until it has ended.

    It counts only while the warehouse holds as many jobs as the account up to there. A damaged
    file is ignored.
    """

    def __init__(self, target: Target, settings: SourceSettings, start: datetime) -> None:
        self._start = start
        self.loaded_until = start
        self.place = target.place()
        loaded = self._saved()
        if loaded and loaded.start == start and is_loaded(loaded, target, settings):
            self.loaded_until = loaded.end

    def _saved(self) -> Window | None:
        try:
            self._state = dlt.pipeline(NAME)
            bounds: Any = self._state.state["_local"].get(self.place)
            return Window.parse(*bounds) if bounds else None
        except (KeyError, TypeError, ValueError):
            rmtree(Path(get_dlt_pipelines_dir()) / NAME, ignore_errors=True)
            self._state = dlt.pipeline(NAME)
            return None

    def save(self, end: datetime) -> None:
        """Save that all windows up to there are loaded."""
        bounds = [timestamp.isoformat() for timestamp in (self._start, end)]
        self._state.set_local_state_val(self.place, bounds)


def split(whole: Window, days: float) -> list[Window]:
    """Return a window as windows of `days` days, without gap or overlap; the last may be shorter.

    Raise `SettingsError` if they would be shorter than a minute.
    """
    if not days >= SHORTEST / DAY:  # NaN is no length either
        raise SettingsError(f"A window can't have {days} days.", "Use a minute or more.")
    length = timedelta(days=min(days, timedelta.max.days))
    count = -((whole.start - whole.end) // length)
    starts = [whole.start + number * length for number in range(count)]
    return [Window(*bounds) for bounds in zip(starts, [*starts[1:], whole.end], strict=True)]


def plan_windows(
    target: Target,
    settings: SourceSettings,
    start: TAnyDateTime | None,
    end: TAnyDateTime | None,
    days: float,
) -> list[Window]:
    """Return the windows of a history, after making the tables that they all load into.

    Without `start` it begins with the day of the oldest job, without `end` it ends behind the
    newest. Raise `SettingsError` when it can't be loaded in windows.
    """
    with TemporaryDirectory() as folder:
        if is_lake(target.pipeline(folder)):
            raise SettingsError(
                "A backfill cannot count the jobs in Delta or Iceberg tables.",
                "Load it with ordinary runs instead.",
            )
    source = convertly_source(**settings)  # raises for a value that is not allowed
    if configured(Reading, settings).status:
        raise SettingsError("Only a whole account can be loaded in windows.", "Leave out status.")
    listing = list_jobs(settings)
    if not listing.is_ordered:
        raise DisorderError
    oldest = listing.search(BEGINNING).oldest.date() if listing.total else NO_JOBS.start.date()
    newest = max(listing.newest_page.youngest, NO_JOBS.start)
    whole = Window(
        parse_timestamp("start", start) or datetime.combine(oldest, time(), UTC),
        parse_timestamp("end", end) or newest + timedelta.resolution,
    )
    if whole.start >= whole.end:
        if end is None:
            raise invalid("start", start, f"Use a time up to {newest}: there are no later jobs.")
        raise invalid("end", end, f"Use a time after {whole.start}.")
    windows = split(whole, days)
    host = source.resources["jobs"].custom_metrics["host"]
    _make_tables(target, settings, listing, host)
    return windows


def load_window(
    window: Window,
    target: Target,
    settings: SourceSettings,
    progress: Collector = NULL_COLLECTOR,
) -> Counter[str]:
    """Load the jobs of a window as they are now; return the number of rows by table."""
    source = convertly_source(start_date=window.start, end_date=window.end, **settings)
    refuse_naming(source.schema)
    layout = f"%s_staging_{window.name}"
    rows = Counter(dict.fromkeys(TABLES, 0))
    with (
        _stateless(target, progress, staging_dataset_name_layout=layout) as pipeline,
        _beside_other_windows(pipeline),
    ):
        restore_schema(pipeline)
        try:
            for chunk in load_in_chunks(pipeline, source):
                rows.update(chunk.rows)
                forget_relisted(pipeline, chunk.loads_of_jobs)
        finally:
            drop_staging(pipeline)
    return rows


def check(whole: Window, target: Target, settings: SourceSettings) -> BackfillResult:
    """Compare the loaded history with the account, and leave one schema for all windows.

    Raise `ResponseError` when jobs of the account are not in the warehouse.
    """
    with _stateless(target) as pipeline:
        if restore_schema(pipeline):
            pipeline.sync_schema()
        listed, jobs = count_listed(settings, whole), _count_loaded(pipeline, whole)
        if jobs < listed:
            raise ResponseError(
                f"The API lists {listed:,} jobs from {whole.start} to {whole.end}, "
                f"{jobs:,} of them are in the warehouse.",
                "Load them again; if that doesn't help, report it to the maintainers.",
            )
        return BackfillResult(jobs, min(whole.end - LAG, _oldest_unfinished(pipeline, whole)))


def is_loaded(window: Window, target: Target, settings: SourceSettings) -> bool:
    """Return whether the warehouse holds as many jobs of a window as the API lists."""
    with _stateless(target) as pipeline:
        return _count_loaded(pipeline, window) >= count_listed(settings, window)


def count_listed(settings: SourceSettings, window: Window) -> int:
    """Return how many jobs of a window the API lists, by their positions.

    Both positions are counted from the oldest job, so jobs that are created meanwhile are in
    neither, and one that vanishes between makes the count smaller, not greater.
    """
    listing = list_jobs(settings)
    start, end = (_count_before(listing, timestamp) for timestamp in window)
    return end - start


def list_jobs(settings: SourceSettings) -> Listing:
    """Return the list of the account's jobs."""
    page_size = configured(Reading, settings).page_size
    return Listing(configured(connect, settings), page_size, max_connections=1)


@contextmanager
def _stateless(
    target: Target, progress: Collector = NULL_COLLECTOR, **destination_options: Any
) -> Iterator[dlt.Pipeline]:
    """Make a pipeline that is gone afterwards, and writes no state.

    Raise `ConvertlyError` if the destination can't be used.
    """
    with without_failures_in_the_log(), TemporaryDirectory() as folder:
        pipeline = target.pipeline(folder, progress, **destination_options)
        pipeline.config.restore_from_destination = False
        with using(target):
            refuse_ambiguous_name(pipeline)
            with pipeline.destination_client():
                pass  # it is there, and lets us in
        yield pipeline


@contextmanager
def _beside_other_windows(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keep ordinary loads out meanwhile, and other windows where there is only one writer.

    Raise `BusyError` if a load is under way.
    """
    place = describe(pipeline)
    with ExitStack() as stack:
        if pipeline.destination.destination_type.rpartition(".")[2] in ONE_WRITER:
            stack.enter_context(file_lock(working_folder(place), place))
            stack.enter_context(database_lock(pipeline, place))
        else:
            stack.enter_context(database_lock(pipeline, place, is_shared=True))
        yield


def _count_before(listing: Listing, timestamp: datetime) -> int:
    return listing.search(timestamp).count_before(timestamp)


def _count_loaded(pipeline: dlt.Pipeline, window: Window) -> int:
    """Return how many jobs of a window the warehouse holds, including rejected ones.

    Those that are known as removed don't count, since they are not listed.
    """
    within = "created_at >= %s AND created_at < %s"
    with open_client(pipeline) as client:
        jobs = client.make_qualified_table_name("jobs")
    is_removed = f"id IN (SELECT id FROM {jobs} WHERE {within})"  # noqa: S608
    held = (count_rows(pipeline, table, within, *window) for table in ("jobs", "rejected_jobs"))
    return sum(held) - count_rows(pipeline, "removed_jobs", is_removed, *window)


def _oldest_unfinished(pipeline: dlt.Pipeline, window: Window) -> datetime:
    ended = ", ".join(f"'{status}'" for status in FINAL_STATUSES)
    sql = f"SELECT min(created_at) FROM {{}} WHERE NOT coalesce(status, '') IN ({ended})"  # noqa: S608
    oldest = select_value(pipeline, f"{sql} AND created_at >= %s", "jobs", window.start)
    return ensure_datetime_in_tz(oldest, UTC) if oldest else window.end


def _make_tables(target: Target, settings: SourceSettings, listing: Listing, host: str) -> None:
    """Make the tables, unless they are there; refuse another account than theirs."""
    with _stateless(target) as pipeline:
        pipeline.sync_destination()
        refuse_other_account(pipeline, host)
        is_new = not restore_schema(pipeline)
        if not configured(Reading, settings).trust_account:
            check_account(listing, known_landmarks(pipeline), listing.newest_page)
    if is_new:
        load_window(NO_JOBS, target, settings)
