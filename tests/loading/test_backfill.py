"""A history in windows: they tile, are loaded at the same time, and leave nothing but the jobs."""

import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import pairwise, repeat
from pathlib import Path
from threading import Barrier
from typing import Any

import duckdb
import psycopg2
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.history import Ask, assert_equal, schemas
from helpers.lists import Order, in_no_order, old_page_swapped
from helpers.warehouse import load_into
from hypothesis import given
from hypothesis import strategies as st

from convertly_source import convertly_source
from convertly_source.api.client import Job
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import (
    BusyError,
    ConvertlyError,
    ResponseError,
    SettingsError,
    explained,
)
from convertly_source.loading import Target
from convertly_source.loading.backfill import (
    BackfillResult,
    Window,
    check,
    count_listed,
    is_loaded,
    load_window,
    plan_windows,
    split,
)
from convertly_source.loading.load import load_in_chunks
from convertly_source.loading.locks import file_lock
from convertly_source.loading.target import restore, working_folder
from convertly_source.reading.job import LAG
from convertly_source.tables.schema import TABLES

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
DAY = timedelta(days=1)
EARLIEST, LATEST = datetime(2020, 1, 1), datetime(2030, 1, 1)  # noqa: DTZ001
TIMESTAMPS = st.datetimes(EARLIEST, LATEST, timezones=st.just(timezone.utc))


class Backfill:
    """The steps of a backfill of the account of `api` into dataset `history`."""

    def __init__(self, api: DemoAPI, destination: str = "duckdb") -> None:
        self.api = api
        self.target = Target(destination, "history")
        self.settings: dict[str, Any] = {"api_key": DEMO_KEY, "base_url": api.url}

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the account."""
        return self.api.account.jobs

    def plan(self, start: Any = None, end: Any = None, days: float = 7) -> list[Window]:
        """Plan the windows."""
        return plan_windows(self.target, self.settings, start, end, days)

    def load(self, window: Window) -> Counter[str]:
        """Load a window."""
        return load_window(window, self.target, self.settings)

    def check(self, whole: Window) -> BackfillResult:
        """Compare the loaded history with the account."""
        return check(whole, self.target, self.settings)


def whole_of(windows: list[Window]) -> Window:
    """Return the window that all windows make."""
    return Window(windows[0].start, windows[-1].end)


def in_duckdb(sql: str) -> list[tuple[Any, ...]]:
    """Query the DuckDB file of the test."""
    with duckdb.connect("convertly.duckdb") as connection:
        return connection.execute(sql).fetchall()


@given(TIMESTAMPS, st.timedeltas(timedelta(microseconds=1), 90 * DAY), st.floats(0.5, 40))
def test_windows_tile_exactly(start: datetime, length: timedelta, days: float) -> None:
    """They begin and end as the whole does, each where the one before ends; the last is clipped."""
    found = split(Window(start, start + length), days)
    assert (found[0].start, found[-1].end) == (start, start + length)
    assert all(before.end == after.start for before, after in pairwise(found))
    lengths = [end - start for start, end in found]
    assert lengths[:-1] == [timedelta(days=days)] * (len(found) - 1)
    assert timedelta(0) < lengths[-1] <= timedelta(days=days)
    assert len({one.name for one in found}) == len(found)


def test_a_window_of_any_length_is_one() -> None:
    """A window that is longer than time itself holds the whole history."""
    whole = Window(*(time.replace(tzinfo=timezone.utc) for time in (EARLIEST, LATEST)))
    assert split(whole, math.inf) == split(whole, 1e300) == [whole]


def test_windows_one_by_one_are_the_account(serve: Serve) -> None:
    """Without bounds they hold all jobs, and leave the tables of the jobs and dlt's, no state."""
    history = Backfill(serve(DemoAccount(150)))
    windows = history.plan(days=4)
    assert len(windows) == 2
    assert sum(history.load(window)["jobs"] for window in windows) == 150
    assert_equal(in_duckdb, history.api.account)
    assert schemas(in_duckdb) == ["history"]
    tables = in_duckdb("SELECT table_name FROM duckdb_tables() ORDER BY 1")
    kept = {"_dlt_loads", "_dlt_version", *TABLES}
    assert {name for (name,) in tables} == kept
    assert history.check(whole_of(windows)).jobs == 150
    assert history.plan(days=4) == windows


def test_a_window_is_half_open(serve: Serve) -> None:
    """A job at the start of a window is in it, one at its end is not; ISO texts make a window."""
    history = Backfill(serve(DemoAccount(0)))
    one, two, three = (history.api.account.create(gap=DAY) for _ in range(3))
    texts = (job["created_at"].replace("Z", "+00:00") for job in (one, three))
    window = Window.parse(*texts)
    assert history.plan(window.start, window.end, 40) == [window]
    assert history.load(window)["jobs"] == 2
    found = in_duckdb("SELECT id FROM history.jobs ORDER BY created_at")
    assert found == [(one["id"],), (two["id"],)]
    history.load(Window(window.end, window.end + DAY))
    assert in_duckdb("SELECT count(*) FROM history.jobs") == [(3,)]
    assert history.check(window).jobs == 2


def test_jobs_of_a_window_are_counted_by_position(serve: Serve) -> None:
    """The API is asked how many jobs a window has, and the warehouse whether it has them."""
    history = Backfill(serve(DemoAccount(250)))
    [whole] = history.plan(days=40)
    first, second = split(whole, (whole.end - whole.start) / DAY / 2)[:2]
    counts = [count_listed(history.settings, window) for window in (first, second, whole)]
    created = [datetime.fromisoformat(job["created_at"][:-1] + "+00:00") for job in history.jobs]
    assert counts == [
        sum(window.start <= time < window.end for time in created)
        for window in (first, second, whole)
    ]
    assert counts[0] > 0 < counts[1]
    history.load(first)
    loaded = [is_loaded(window, history.target, history.settings) for window in (first, whole)]
    assert loaded == [True, False]


@pytest.mark.covers
def test_missing_jobs_are_reported(serve: Serve) -> None:
    """Fewer jobs in the warehouse than in the account is an error, with both numbers."""
    history = Backfill(serve(DemoAccount(120)))
    del history.jobs[7]["id"]  # which is in rejected_jobs instead
    [whole] = history.plan(days=40)
    history.load(whole)
    assert history.check(whole).jobs == 120
    in_duckdb("DELETE FROM history.jobs WHERE created_at > '2026-05-03' RETURNING id")
    with pytest.raises(ResponseError, match=r"lists 120 jobs .* \d+ of them"):
        history.check(whole)
    Path("convertly.duckdb").unlink()
    with pytest.raises(ResponseError, match=r"lists 120 jobs .* 0 of them"):
        history.check(whole)


@pytest.mark.covers
def test_no_other_row_hides_a_missing_job(serve: Serve) -> None:
    """A window has as many jobs as are listed in it: none that was rejected elsewhere or removed.

    A rejected job without a time counts where the list has it.
    """
    history = Backfill(serve(DemoAccount(120)))
    for at in (7, 10, 95, 100, 105):
        del history.jobs[at]["id"]
    history.jobs[10]["created_at"] += "?"  # no time, at the same place
    gone = history.jobs[50]
    gone |= {"status": "pending", "results": None}
    load_into(history.target, history.api)
    window = history.plan(end=history.jobs[90]["created_at"], days=40)[0]
    assert history.check(window).jobs == 90
    history.api.account.cancel(gone)
    load_into(history.target, history.api)
    assert history.check(window).jobs == 89
    in_duckdb(f"DELETE FROM history.jobs WHERE id = '{history.jobs[0]['id']}' RETURNING id")
    with pytest.raises(ResponseError, match=r"lists 89 jobs .* 88 of them"):
        history.check(window)
    history.jobs.insert(50, gone)
    history.load(window)
    assert history.check(window).jobs == 90
    assert in_duckdb("SELECT count(*) FROM history.removed_jobs") == [(0,)]


def test_a_window_that_fails_leaves_nothing(serve: Serve) -> None:
    """A key that is refused is an error of the window, before anything is made for it."""
    history = Backfill(serve(DemoAccount(20)))
    [whole] = history.plan(days=40)
    history.settings["api_key"] = "cvly_wrong"
    with pytest.raises(PipelineStepFailed) as failed:
        history.load(whole)
    assert isinstance(explained(failed.value), SettingsError)
    assert schemas(in_duckdb) == ["history"]


def test_windows_at_the_same_time_lose_nothing(
    serve: Serve, in_postgres: Ask, tmp_path: Path
) -> None:
    """Eight windows on four workers: all jobs and results are there, and one schema knows all.

    Each window brings a field of its own and a job that is rejected, so that all of them change
    the same tables, and each of the first four waits until the others are there.
    """
    history = Backfill(serve(DemoAccount(800)), "postgres")
    api = history.api
    windows = history.plan(days=35 / 8)
    for number in range(0, 800, 20):
        job = api.account.jobs[number]
        created_at = datetime.fromisoformat(job["created_at"].replace("Z", "+00:00"))
        [index] = [at for at, one in enumerate(windows) if one.start <= created_at < one.end]
        job[f"extra_{index}"] = number
        del api.account.jobs[number + 1]["id"]
    api.account.jobs = [job | {"id": job.get("id")} for job in api.account.jobs]
    meeting = Barrier(4, timeout=50)

    def meet(_: dict[str, str]) -> None:
        if len(api.requests) <= first + 4:
            meeting.wait()

    first, api.fault = len(api.requests), meet
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as workers:
        list(workers.map(load_window, windows, repeat(history.target), repeat(history.settings)))
    api.fault = lambda _: None
    assert history.check(whole_of(windows)).jobs == 800
    assert_equal(in_postgres, api.account)
    assert in_postgres("SELECT count(*) FROM history.rejected_jobs") == [(40,)]
    assert schemas(in_postgres) == ["history"]
    extras = [f"extra_{number}" for number in range(len(windows))]
    pipeline = history.target.pipeline(str(tmp_path / "reader"))
    restore(pipeline)
    stored = [key for (key,) in in_postgres("SELECT version_hash FROM history._dlt_version")]
    assert {*extras} <= {*pipeline.default_schema.tables["jobs"]["columns"]}
    assert pipeline.default_schema.version_hash in stored
    for name in extras:
        assert in_postgres(f"SELECT count({name}) > 0 FROM history.jobs") == [(True,)]


@pytest.mark.covers
def test_a_column_that_two_windows_add_is_added_once(serve: Serve, in_postgres: Ask) -> None:
    """Where another load adds a column at the same moment, the window looks again, and succeeds."""
    history = Backfill(serve(DemoAccount(40)), "postgres")
    [whole] = history.plan()
    history.jobs[0]["extra"] = "new"
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'history.jobs'::regclass"
    with (
        closing(psycopg2.connect(url)) as other,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as workers,
    ):
        other.cursor().execute("ALTER TABLE history.jobs ADD COLUMN extra varchar")
        loaded = workers.submit(load_window, whole, history.target, history.settings)
        while not in_postgres(waiting):
            assert not loaded.done()
            time.sleep(0.05)
        other.commit()
        assert loaded.result()["jobs"] == 40
    assert in_postgres("SELECT count(extra) FROM history.jobs") == [(1,)]


def test_an_ordinary_run_takes_over(serve: Serve) -> None:
    """From the date that is handed over, an ordinary run follows all that was not ended."""
    history = Backfill(serve(DemoAccount(120)))
    api = history.api
    windows = history.plan(days=3)
    for window in windows:
        history.load(window)
    done = history.check(whole_of(windows))
    unfinished = api.account.unfinished()
    assert f"{done.start_date:%Y-%m-%dT%H:%M:%S}" == unfinished[0]["created_at"][:19]
    for start_date in (done.start_date, None):
        load_into(history.target, api, {"start_date": start_date}, pages_per_chunk=1)
        assert_equal(in_duckdb, api.account)
        api.account.finish(api.account.unfinished()[0])
        api.account.finish(api.account.create())
    api.requests.clear()
    load_into(history.target, api)
    assert_equal(in_duckdb, api.account)
    assert len(api.requests) <= 4  # not the history
    for job in api.account.unfinished():
        api.account.finish(job)
    whole = whole_of(windows)
    load_into(history.target, api)
    assert history.check(whole).start_date == whole.end - LAG


def test_a_column_keeps_the_type_that_it_had_first(serve: Serve, tmp_path: Path) -> None:
    """Two windows that did not know of each other may take a field for different types."""
    history = Backfill(serve(DemoAccount(60)))
    early, late = history.plan(days=2)
    first, *_, last = history.jobs
    first["priority"], last["priority"] = 3, "high"
    history.load(early)
    source = convertly_source(start_date=late.start, end_date=late.end, **history.settings)
    pipeline = history.target.pipeline(str(tmp_path / "apart"))
    pipeline.config.restore_from_destination = False
    with pytest.raises(ConvertlyError, match="table jobs"):  # as if loaded at the same time
        list(load_in_chunks(pipeline, source))
    history.load(late)
    found = in_duckdb("SELECT priority, priority__v_text FROM history.jobs ORDER BY created_at")
    assert (found[0], found[-1]) == ((3, None), (None, "high"))


@pytest.mark.covers
@pytest.mark.parametrize(
    ("destination", "window", "days", "message"),
    [
        ("filesystem", (None, None), 7, "ordinary runs"),
        ("nowhere", (None, None), 7, "Invalid destination 'nowhere'"),
        ("duckdb", ("yesterday", None), 7, "Invalid start 'yesterday'"),
        ("duckdb", ("2027-01-01", None), 7, "Invalid start '2027-01-01'. Use a time up to 2026-"),
        ("duckdb", (None, "2026-01-01"), 7, "Invalid end '2026-01-01'. Use a time after 2026-05"),
        ("duckdb", (None, None), 0, "0 days"),
        ("duckdb", (None, None), math.nan, "nan days"),
        ("lake", (None, None), 7, "ordinary runs"),
    ],
)
def test_windows_that_are_not_possible_are_refused(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
    window: tuple[Any, Any],
    days: float,
    message: str,
) -> None:
    """No windows of a lake, without length, or without an end after the start."""
    monkeypatch.setenv("DESTINATION__LAKE__DESTINATION_TYPE", "filesystem")
    with pytest.raises(SettingsError) as refused:
        Backfill(serve(DemoAccount(250)), destination).plan(*window, days)
    assert message in f"{refused.value} {refused.value.remedy}"
    assert not Path("convertly.duckdb").exists()


@pytest.mark.covers
def test_a_part_of_the_account_is_not_split(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status in the settings is refused: jobs of any status are counted."""
    monkeypatch.setenv("SOURCES__CONVERTLY__STATUS", "failed")
    with pytest.raises(SettingsError, match="Only a whole account") as refused:
        Backfill(serve(DemoAccount(20))).plan()
    assert "status" in refused.value.remedy
    assert not Path("convertly.duckdb").exists()


def test_a_named_destination_has_one_writer_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB by another name takes no window beside another load, either."""
    monkeypatch.setenv("DESTINATION__OWN__DESTINATION_TYPE", "duckdb")
    history = Backfill(serve(DemoAccount(20)), "own")
    [window] = history.plan(days=40)
    place = history.target.place()
    with file_lock(working_folder(place), place), pytest.raises(BusyError):
        history.load(window)


@pytest.mark.covers
@pytest.mark.parametrize("order", [in_no_order, old_page_swapped])
def test_a_list_in_no_order_is_not_split(serve: Serve, order: Order) -> None:
    """Each window would read the whole list, so ordinary runs are named instead."""
    api = serve(DemoAPI(DemoAccount(250), order=order))
    with pytest.raises(SettingsError, match="in no order") as refused:
        Backfill(api).plan()
    assert "ordinary run" in refused.value.remedy


def test_an_account_without_jobs_has_one_empty_window(serve: Serve) -> None:
    """The tables are made, and a job that comes later is for the ordinary runs."""
    history = Backfill(serve(DemoAccount(0)))
    windows = history.plan()
    assert [history.load(window)["jobs"] for window in windows] == [0]
    assert history.check(whole_of(windows)).jobs == 0
    assert in_duckdb("SELECT count(*) FROM history.jobs") == [(0,)]


def test_another_account_is_refused(serve: Serve) -> None:
    """Two hosts in one dataset would spoil each other, in windows as in ordinary runs."""
    history = Backfill(serve(DemoAccount(20)))
    load_into(history.target, history.api)
    history.plan()
    history.settings["base_url"] = history.api.url.replace("127.0.0.1", "localhost")
    with pytest.raises(SettingsError, match=r"holds the account of 127.0.0.1, not that of local"):
        history.plan()
