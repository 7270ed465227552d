"""A full refresh: nothing less than before until it has ended, and whoever loads next ends it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import pytest
from helpers.lakes import lake_rows
from helpers.script import content, listed, query
from helpers.warehouse import load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import ConvertlyError
from convertly_source.loading import Target, refresh
from convertly_source.loading.load import load_in_chunks
from convertly_source.loading.target import commit_state, restore

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
TARGET = Target()
GONE = 50


@pytest.fixture
def api(serve: Serve) -> DemoAPI:
    """Serve an account that was loaded, and has lost its oldest jobs since."""
    api = serve(DemoAccount(250))
    load_into(TARGET, api)
    api.account.jobs = api.account.jobs[GONE:]
    return api


@contextmanager
def restored(folder: Path, target: Target = TARGET) -> Iterator[dlt.Pipeline]:
    """Yield a pipeline as on another machine."""
    pipeline = target.pipeline(folder)
    restore(pipeline)
    yield pipeline


def break_off(api: DemoAPI, folder: Path, chunks: int, **settings: Any) -> None:
    """Begin a full refresh, and end after some chunks as if it was killed."""
    with restored(folder) as pipeline:
        refresh.begin(pipeline)
        source = convertly_source(DEMO_KEY, api.url, **settings)
        loads = load_in_chunks(pipeline, source, 1)
        for _ in range(chunks):
            next(loads)


def assert_finished(api: DemoAPI, folder: Path) -> None:
    """Compare all tables with the account; nothing is under way, and there is nothing to load."""
    assert content() == listed(api.account)
    results = query("SELECT DISTINCT job_id FROM convertly_data.jobs__results")
    finished = {job["id"] for job in api.account.jobs}
    assert {key for (key,) in results} <= finished
    assert query("SELECT count(*) FROM convertly_data.jobs__results") != [(0,)]
    with restored(folder / "after") as pipeline:
        assert not refresh.is_under_way(pipeline)
    assert load_into(TARGET, api).rows["jobs"] == 0


@pytest.mark.parametrize("chunks", [0, 2])
def test_the_next_load_finishes_a_refresh(api: DemoAPI, tmp_path: Path, chunks: int) -> None:
    """Killed anywhere, it leaves all rows; the next ordinary load deletes those that are gone."""
    break_off(api, tmp_path / "killed", chunks)
    assert len(content()) == 250
    load_into(TARGET, api)
    assert_finished(api, tmp_path)


def test_a_refresh_killed_twice_is_finished(api: DemoAPI, tmp_path: Path) -> None:
    """Another full refresh after a killed one takes its place."""
    for number in range(2):
        break_off(api, tmp_path / f"killed_{number}", 1)
    assert len(content()) == 250
    load_into(TARGET, api)
    assert_finished(api, tmp_path)


def test_it_goes_on_where_it_was_killed(api: DemoAPI, tmp_path: Path) -> None:
    """What a killed refresh has loaded is not read again by the load that finishes it."""
    break_off(api, tmp_path / "killed", 2, max_connections=1)
    loads = query("SELECT DISTINCT _dlt_load_id FROM convertly_data.jobs")
    load_into(TARGET, api)
    kept = {*query("SELECT DISTINCT _dlt_load_id FROM convertly_data.jobs")}
    assert len(kept & {*loads}) >= 1
    assert_finished(api, tmp_path)


@pytest.mark.parametrize(
    ("settings", "chunks"),
    [
        ({"status": "completed"}, 0),
        ({"start_date": "2026-05-05"}, 1),
        ({"end_date": "2026-05-05"}, 1),
    ],
    ids=["status", "start", "end"],
)
def test_a_load_of_a_part_does_not_finish_it(
    api: DemoAPI, tmp_path: Path, settings: dict[str, str], chunks: int
) -> None:
    """A load with a status or a window deletes nothing; the next one over all does."""
    break_off(api, tmp_path / "killed", chunks)
    for _ in range(2):
        load_into(TARGET, api, settings)
        assert len(content()) == 250
    load_into(TARGET, api)
    assert_finished(api, tmp_path)


@pytest.mark.covers
def test_a_refresh_of_a_part_leaves_that_part(api: DemoAPI) -> None:
    """Asked to refresh with a status, the tables hold the jobs of that status."""
    load_into(TARGET, api, {"status": "failed"}, full_refresh=True)
    failed = sorted(row for row in listed(api.account) if row[1] == "failed")
    assert content() == failed


@pytest.mark.covers
def test_without_a_load_before_it_begins_nothing(serve: Serve, tmp_path: Path) -> None:
    """A full refresh into an empty dataset is a first load."""
    api = serve(DemoAccount(20))
    with restored(tmp_path / "one") as pipeline:
        refresh.begin(pipeline)
        assert not refresh.is_under_way(pipeline)
    assert load_into(TARGET, api, full_refresh=True).new_jobs == 20


def test_results_may_come_with_the_refresh(serve: Serve, tmp_path: Path) -> None:
    """A dataset whose first load was killed before any job had results can be refreshed."""
    api = serve(DemoAccount(120))
    for job in api.account.jobs:
        job |= {"status": "pending", "results": None, "completed_at": None}
    with restored(tmp_path / "killed") as pipeline:
        next(load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url), 1))
    for job in api.account.unfinished()[:5]:
        api.account.finish(job)
    load_into(TARGET, api, full_refresh=True)
    assert content() == listed(api.account)


def test_side_tables_are_refreshed_too(serve: Serve) -> None:
    """What was rejected or removed is as after a first load."""
    api = serve(DemoAccount(120))
    account = api.account
    one, two = account.create(), account.create()
    del one["id"]
    del two["id"]
    load_into(TARGET, api)
    account.cancel(account.unfinished()[0])
    load_into(TARGET, api)
    account.cancel(one)
    counts = [
        query(f"SELECT count(*) FROM convertly_data.{table}")[0][0]
        for table in ("jobs", "rejected_jobs", "removed_jobs")
    ]
    assert counts == [120, 2, 1]
    load_into(TARGET, api, full_refresh=True)
    counts = [
        query(f"SELECT count(*) FROM convertly_data.{table}")[0][0]
        for table in ("jobs", "rejected_jobs", "removed_jobs")
    ]
    assert counts == [119, 1, 0]


def test_a_view_of_a_user_stays(api: DemoAPI) -> None:
    """A full refresh drops no table, so a view on it is right throughout."""
    query("CREATE VIEW convertly_data.mine AS SELECT id FROM convertly_data.jobs")
    load_into(TARGET, api, full_refresh=True)
    assert query("SELECT count(*) FROM convertly_data.mine") == [(200,)]


@pytest.mark.covers
def test_a_clock_that_is_behind_is_told(api: DemoAPI) -> None:
    """Old rows are told from new ones by time, so nothing is deleted by a clock that is behind."""
    later = f"{time.time() + 3600:.6f}"
    query(f"UPDATE convertly_data._dlt_loads SET load_id = '{later}'")
    with pytest.raises(ConvertlyError, match="clock of this machine is behind") as told:
        load_into(TARGET, api, full_refresh=True)
    assert told.value.exit_code == 1
    assert len(content()) == 250


def test_a_clock_behind_the_mark_is_told(api: DemoAPI, tmp_path: Path) -> None:
    """A load that can't finish a refresh which another machine began says so; nothing is lost."""
    break_off(api, tmp_path / "killed", 1)
    with restored(tmp_path / "other") as pipeline:
        mark = f"{time.time() + 3600:.6f}"
        commit_state(pipeline, lambda state: state.update({refresh.MARK: mark}))
    requests = len(api.requests)  # rows that are loaded now would count as old ones later
    with pytest.raises(ConvertlyError, match="clock of this machine is behind"):
        load_into(TARGET, api)
    assert len(api.requests) == requests
    assert len(content()) == 250


def test_the_demo_makes_way_though_it_is_killed(serve: Serve, tmp_path: Path) -> None:
    """Broken off while it replaces the demo data, the next load of the account does so."""
    load_into(TARGET, serve(DemoAccount(50)))
    account = serve(DemoAccount(20, seed=1))
    url = account.url.replace("127.0.0.1", "localhost")
    break_off(account, tmp_path / "killed", 0)
    assert len(content()) == 50
    load_into(TARGET, account, {"base_url": url})
    assert content() == listed(account.account)


@pytest.mark.parametrize("table_format", ["delta", "iceberg"])
def test_a_lake_is_dropped_once(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table_format: str
) -> None:
    """A refresh of a lake that was killed is done by the next load, and not by the one after."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", f"file://{tmp_path}/lake")
    lake, settings = Target("filesystem"), {"table_format": table_format}
    api = serve(DemoAccount(60))
    load_into(lake, api, settings)
    api.account.jobs = api.account.jobs[GONE:]
    with restored(tmp_path / "killed", lake) as pipeline:
        refresh.begin(pipeline)
        assert refresh.is_under_way(pipeline)

    def ids() -> list[str]:
        with restored(tmp_path / "reader", lake) as pipeline:
            return sorted(row["id"] for row in lake_rows(pipeline, table_format, "jobs"))

    assert len(ids()) == 60
    load_into(lake, api, settings)
    assert ids() == [key for key, _ in listed(api.account)]
    api.account.create()
    assert load_into(lake, api, settings).rows["jobs"] == 1
    assert ids() == [key for key, _ in listed(api.account)]
    api.account.jobs = api.account.jobs[5:]
    load_into(lake, api, settings, full_refresh=True)
    assert ids() == [key for key, _ in listed(api.account)]
