"""A history in windows: they tile, are loaded at the same time, and leave nothing but the jobs."""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import duckdb
import psycopg2
import pytest
from convertly_source.loading.loads import (
    load_in_chunks,
    pipeline_into,
    refuse_other_account,
    restore,
)
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.history import Ask, assert_equal, schemas
from helpers.lists import in_no_order
from hypothesis import given
from hypothesis import strategies as st

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import ResponseError, SettingsError, explained
from convertly_source.loading.backfill import Place, Window, finish, load, plan, tiles, window
from convertly_source.reading.run import LAG

Serve = Callable[..., DemoAPI]
DAY = timedelta(days=1)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001


def at(api: DemoAPI, destination: str = "duckdb") -> Place:
    """Say where to load the account of `api` to."""
    return Place(destination, "history", {"api_key": DEMO_KEY, "base_url": api.url})


def in_duckdb(sql: str) -> list[tuple[Any, ...]]:
    """Ask the DuckDB file of the test."""
    with duckdb.connect("convertly.duckdb") as connection:
        return connection.execute(sql).fetchall()


@given(MOMENTS, st.timedeltas(timedelta(microseconds=1), 90 * DAY), st.floats(0.5, 40))
def test_windows_tile_exactly(start: datetime, length: timedelta, days: float) -> None:
    """They begin and end as the whole does, each where the one before ends; the last is clipped."""
    found = tiles(Window(start, start + length), days)
    assert (found[0].start, found[-1].end) == (start, start + length)
    assert all(before.end == after.start for before, after in pairwise(found))
    lengths = [end - start for start, end in found]
    assert lengths[:-1] == [timedelta(days=days)] * (len(found) - 1)
    assert timedelta(0) < lengths[-1] <= timedelta(days=days)
    assert len({one.name for one in found}) == len(found)


def test_windows_one_by_one_are_the_account(serve: Serve) -> None:
    """Without bounds they hold all jobs, and leave the tables of the jobs and dlt's, no state."""
    api = serve(DemoAccount(300))
    windows = plan(at(api), None, None, 2)
    assert len(windows) == 6
    assert sum(load(one, at(api))["jobs"] for one in windows) == 300
    assert_equal(in_duckdb, api.account)
    assert schemas(in_duckdb) == ["history"]
    tables = in_duckdb("SELECT table_name FROM duckdb_tables() ORDER BY 1")
    assert tables == [("_dlt_loads",), ("_dlt_version",), ("jobs",), ("jobs__results",)]
    whole = Window(windows[0].start, windows[-1].end)
    assert finish(whole, at(api)).jobs == 300
    assert plan(at(api), None, None, 2) == windows


def test_a_window_is_half_open(serve: Serve) -> None:
    """A job at the start of a window is in it, one at its end is not; it is named by texts."""
    api = serve(DemoAccount(0))
    one, two, three = (api.account.create(gap=DAY) for _ in range(3))
    bounds = window(one["created_at"], three["created_at"])
    assert plan(at(api), bounds.start, bounds.end, 40) == [bounds]
    assert load(bounds, at(api))["jobs"] == 2
    found = in_duckdb("SELECT id FROM history.jobs ORDER BY created_at")
    assert found == [(one["id"],), (two["id"],)]
    load(Window(bounds.end, bounds.end + DAY), at(api))
    assert in_duckdb("SELECT count(*) FROM history.jobs") == [(3,)]
    assert finish(bounds, at(api)).jobs == 2


def test_what_is_missing_is_said(serve: Serve) -> None:
    """Fewer jobs in the warehouse than in the account is an error, with both numbers."""
    api = serve(DemoAccount(120))
    del api.account.jobs[7]["id"]  # which is in rejected_jobs instead
    [whole] = plan(at(api), None, None, 40)
    load(whole, at(api))
    assert finish(whole, at(api)).jobs == 120
    in_duckdb("DELETE FROM history.jobs WHERE created_at > '2026-05-03' RETURNING id")
    with pytest.raises(ResponseError, match=r"lists 120 jobs .* \d+ of them"):
        finish(whole, at(api))
    Path("convertly.duckdb").unlink()
    with pytest.raises(ResponseError, match=r"lists 120 jobs .* 0 of them"):
        finish(whole, at(api))


def test_a_window_that_fails_leaves_nothing(serve: Serve) -> None:
    """A key that is refused is an error of the window, before anything is made for it."""
    api = serve(DemoAccount(20))
    [whole] = plan(at(api), None, None, 40)
    place = at(api)
    place.settings["api_key"] = "cvly_wrong"
    with pytest.raises(PipelineStepFailed) as failed:
        load(whole, place)
    assert isinstance(explained(failed.value), SettingsError)
    assert schemas(in_duckdb) == ["history"]


def test_windows_at_the_same_time_lose_nothing(serve: Serve, in_postgres: Ask) -> None:
    """Eight windows on four workers: all jobs and results are there, and one schema knows all.

    Each window brings a field of its own and a job that is rejected, so that all of them change
    the same tables, and each of the first four waits until the others are there.
    """
    api = serve(DemoAccount(800))
    place = at(api, "postgres")
    windows = plan(place, None, None, 35 / 8)
    for number in range(0, 800, 20):
        job = api.account.jobs[number]
        age = datetime.fromisoformat(job["created_at"].replace("Z", "+00:00"))
        [place_in_time] = [index for index, one in enumerate(windows) if one.start <= age < one.end]
        job[f"extra_{place_in_time}"] = number
        del api.account.jobs[number + 1]["id"]
    api.account.jobs = [job | {"id": job.get("id")} for job in api.account.jobs]
    meeting = Barrier(4, timeout=50)

    def meet(_: dict[str, str]) -> None:
        if len(api.requests) <= first + 4:
            meeting.wait()

    first, api.fault = len(api.requests), meet
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as workers:
        list(workers.map(load, windows, [place] * len(windows)))
    api.fault = lambda _: None
    assert finish(Window(windows[0].start, windows[-1].end), place).jobs == 800
    assert_equal(in_postgres, api.account)
    assert in_postgres("SELECT count(*) FROM history.rejected_jobs") == [(40,)]
    assert schemas(in_postgres) == ["history"]
    extras = [f"extra_{number}" for number in range(len(windows))]
    [(stored,)] = in_postgres(
        "SELECT schema FROM history._dlt_version ORDER BY inserted_at DESC LIMIT 1"
    )
    with place.pipeline() as pipeline:
        restore(pipeline)
        assert {*extras} <= {*pipeline.default_schema.tables["jobs"]["columns"]}
        assert pipeline.default_schema.version_hash in stored
    for name in extras:
        assert in_postgres(f"SELECT count({name}) > 0 FROM history.jobs") == [(True,)]


def test_a_column_that_two_windows_add_is_added_once(serve: Serve, in_postgres: Ask) -> None:
    """Where another load adds a column at the same moment, the window looks again, and goes on."""
    api = serve(DemoAccount(40))
    place = at(api, "postgres")
    [whole] = plan(place, None, None, 7)
    api.account.jobs[0]["extra"] = "new"
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'history.jobs'::regclass"
    with (
        closing(psycopg2.connect(url)) as other,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as workers,
    ):
        other.cursor().execute("ALTER TABLE history.jobs ADD COLUMN extra varchar")
        loaded = workers.submit(load, whole, place)
        while not in_postgres(waiting):
            assert not loaded.done()
            time.sleep(0.05)
        other.commit()
        assert loaded.result()["jobs"] == 40
    assert in_postgres("SELECT count(extra) FROM history.jobs") == [(1,)]


def test_an_ordinary_run_takes_over(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the date that is handed over on, an ordinary run follows all that was not ended."""
    monkeypatch.setattr("convertly_source.loading.loads.PAGES_A_CHUNK", 1)
    api = serve(DemoAccount(300))
    windows = plan(at(api), None, None, 5)
    for one in windows:
        load(one, at(api))
    done = finish(Window(windows[0].start, windows[-1].end), at(api))
    unfinished = api.account.unfinished()
    assert f"{done.start_date:%Y-%m-%dT%H:%M:%S}" == unfinished[0]["created_at"][:19]
    pipeline = pipeline_into("duckdb", "history", str(tmp_path / "pipelines"))
    for start_date in (done.start_date, None):
        restore(pipeline)
        load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url, start_date=start_date))
        assert_equal(in_duckdb, api.account)
        api.account.finish(api.account.unfinished()[0])
        api.account.finish(api.account.create())
    api.requests.clear()
    load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url))
    assert_equal(in_duckdb, api.account)
    assert len(api.requests) <= 4  # not the history
    for job in api.account.unfinished():
        api.account.finish(job)
    whole = Window(windows[0].start, windows[-1].end)
    load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url))
    assert finish(whole, at(api)).start_date == whole.end - LAG


def test_a_column_keeps_the_type_that_it_had_first(serve: Serve) -> None:
    """Two windows that did not know of each other may take a field for different types."""
    api = serve(DemoAccount(60))
    early, late = plan(at(api), None, None, 2)
    first, *_, last = api.account.jobs
    first["priority"], last["priority"] = 3, "high"
    load(early, at(api))
    source = convertly_source(DEMO_KEY, api.url, start_date=late.start, end_date=late.end)
    with at(api).pipeline() as pipeline, pytest.raises(PipelineStepFailed):
        load_in_chunks(pipeline, source)  # as if the two were loaded at the same time
    load(late, at(api))
    found = in_duckdb("SELECT priority, priority__v_text FROM history.jobs ORDER BY created_at")
    assert (found[0], found[-1]) == ((3, None), (None, "high"))


def test_what_can_not_be_loaded_in_windows_is_refused(serve: Serve) -> None:
    """No windows of a lake, of a list in no order, or without length; nor of another account."""
    api = serve(DemoAccount(250))
    for place, start, days, said in (
        (at(api, "filesystem"), None, 7, "ordinary runs"),
        (at(api, "nowhere"), None, 7, "no destination"),
        (at(api), "yesterday", 7, "start can't be 'yesterday'"),
        (at(api), "2027-01-01", 7, "end can't be 2026-05"),
        (at(api), None, 0, "0 days"),
        (at(serve(DemoAPI(DemoAccount(250), order=in_no_order))), None, 7, "no order of age"),
    ):
        with pytest.raises(SettingsError) as refused:
            plan(place, start, None, days)
        assert said in f"{refused.value} {refused.value.remedy}"
    assert not Path("convertly.duckdb").exists()


def test_an_account_without_jobs_has_one_empty_window(serve: Serve) -> None:
    """The tables are made, and a job that comes later is for the ordinary runs."""
    api = serve(DemoAccount(0))
    windows = plan(at(api), None, None, 7)
    assert [load(one, at(api))["jobs"] for one in windows] == [0]
    assert finish(Window(windows[0].start, windows[-1].end), at(api)).jobs == 0
    assert in_duckdb("SELECT count(*) FROM history.jobs") == [(0,)]


def test_another_account_is_refused(serve: Serve, tmp_path: Path) -> None:
    """Two hosts in one dataset would spoil each other, in windows as in ordinary runs."""
    api = serve(DemoAccount(20))
    pipeline = pipeline_into("duckdb", "history", str(tmp_path / "pipelines"))
    load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url))
    refuse_other_account(pipeline, "127.0.0.1")
    place = at(api)
    place.settings["base_url"] = api.url.replace("127.0.0.1", "localhost")
    with pytest.raises(SettingsError, match=r"holds the account of 127.0.0.1, not that of local"):
        plan(place, None, None, 7)
