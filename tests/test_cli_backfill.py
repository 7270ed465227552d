"""`convertly-source backfill`: windows one by one, continued after whatever ended the last run."""

import os
import re
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from dlt.common.pipeline import get_dlt_pipelines_dir
from helpers.script import (
    Done,
    access,
    assert_refused,
    backfill,
    content,
    kill,
    listed,
    load_from,
    query,
    run,
    started,
)

from convertly_source.demo import DemoAccount, DemoAPI, Reply

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]


def windows(done: Done) -> list[int]:
    """Return the numbers of the windows that a run has loaded."""
    return [int(number) for number in re.findall(r"^(\d+) of \d+: ", done.stdout, re.MULTILINE)]


def continuation(done: Done) -> list[str]:
    """Return the arguments of the command that a backfill ends with."""
    program, *arguments = shlex.split(done.stdout.splitlines()[-1])
    assert program == "convertly-source"
    return arguments


def stop_after_a_window(api: DemoAPI) -> None:
    """Run a backfill of two windows, until the API answers something unknown in the second."""
    loaded = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'jobs' AND estimated_size > 0"
    api.fault = lambda _: Reply(418, {}) if query(loaded) else None
    done = backfill(api, "--days", "4")
    api.fault = lambda _: None
    assert done.returncode == 4
    assert windows(done) == [1]


def test_the_demo_is_loaded_window_by_window() -> None:
    """`--demo` needs no key; each window has a line, and the last line continues the demo."""
    done = run("backfill", "--demo", "--days", "70")
    assert done.returncode == 0, done.stderr
    assert windows(done) == [1, 2]
    assert re.search(r"^1 of 2: 2026-05-01 00:00 to 2026-07-10 00:00, 1,\d+ jobs", done.stdout)
    assert "All 3,000 jobs of these windows are in convertly_data of duckdb:" in done.stdout
    assert content() == listed(DemoAccount())
    totals = re.findall(r" of ([\d,]+) jobs read", done.stderr)
    assert set(totals) == {"3,000"}
    assert continuation(done)[0] == "load"
    assert "--demo" in continuation(done)


def test_dlts_own_pipeline_is_left_alone(tmp_path: Path) -> None:
    """A pipeline of a user's own, which remembers its folder, is not used or changed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (elsewhere, tmp_path):
        os.chdir(folder)
        done = run("backfill", "--demo", "--days", "140")
        assert f"duckdb:///{folder}/convertly.duckdb." in done.stdout
    assert not (Path(get_dlt_pipelines_dir()) / "convertly").exists()


@pytest.mark.covers
@pytest.mark.slow
def test_an_ordinary_load_continues_a_backfill(serve: Serve) -> None:
    """The command that it ends with follows what has not ended, and makes no job new."""
    api = serve(DemoAccount(150))
    done = backfill(api, "--dataset", "history")
    for job in api.account.unfinished():
        api.account.finish(job)
    api.account.finish(api.account.create())
    loaded = run(*continuation(done), **access(api))
    assert "(1 new, " in loaded.stdout, loaded.stderr
    assert content("history") == listed(api.account)


@pytest.mark.slow
def test_a_run_that_failed_continues_with_its_window(serve: Serve) -> None:
    """After an error in the second window the next run loads that one, and those after it.

    A run into another dataset has nothing to do with it.
    """
    api = serve(DemoAccount(150))
    stop_after_a_window(api)
    other = backfill(api, "--days", "4", "--dataset", "other", "--end", "2026-05-02")
    assert windows(other) == [1]
    assert windows(backfill(api, "--days", "4")) == [2]
    assert content() == listed(api.account)


@pytest.mark.covers
@pytest.mark.slow
def test_a_finished_history_is_loaded_again(serve: Serve) -> None:
    """A run after one that came to its end loads all windows, as they are now."""
    api = serve(DemoAccount(40))
    for _ in range(2):
        assert windows(backfill(api)) == [1]
        assert content() == listed(api.account)
        api.account.finish(api.account.unfinished()[0])


@pytest.mark.covers
@pytest.mark.slow
def test_a_file_that_was_deleted_is_loaded_whole(serve: Serve, tmp_path: Path) -> None:
    """Notes of what was loaded count only while the warehouse holds it."""
    api = serve(DemoAccount(150))
    stop_after_a_window(api)
    (tmp_path / "convertly.duckdb").unlink()
    assert windows(backfill(api, "--days", "4")) == [1, 2]
    assert content() == listed(api.account)


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "\0"])
def test_a_checkpoint_that_is_damaged_is_none(serve: Serve, text: str) -> None:
    """What a full disk has left of the notes is replaced, and all windows are loaded."""
    api = serve(DemoAccount(40))
    notes = Path(get_dlt_pipelines_dir()) / "convertly_backfill" / "state.json"
    notes.parent.mkdir(parents=True)
    notes.write_text(text)
    done = backfill(api)
    assert (done.returncode, windows(done)) == (0, [1]), done.stderr
    assert content() == listed(api.account)
    assert "convertly_data" in notes.read_text()


@pytest.mark.slow
def test_the_setting_page_size_is_kept(serve: Serve) -> None:
    """No request is for more jobs than the setting says."""
    api = serve(DemoAccount(120))
    done = backfill(api, SOURCES__CONVERTLY__PAGE_SIZE="50")
    assert done.returncode == 0, done.stderr
    assert max(int(request["limit"]) for request in api.requests) == 50


@pytest.mark.covers
@pytest.mark.slow
def test_a_killed_run_continues_with_its_window(serve: Serve) -> None:
    """Killed in the third window, the next run continues with it, and ends with all jobs."""
    api = serve(DemoAccount(600))
    process = started("backfill", "--days", "5", **access(api))
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(2)]
    kill(process)
    assert [line[:6] for line in lines] == ["1 of 5", "2 of 5"]
    done = backfill(api, "--days", "5")
    assert done.returncode == 0, done.stderr
    assert windows(done) in ([3, 4, 5], [4, 5])  # it may have been quick
    assert content() == listed(api.account)
    leftovers = query("SELECT count(*) FROM duckdb_schemas() WHERE schema_name LIKE '%staging%'")
    assert leftovers == [(0,)]


@pytest.mark.slow
def test_sqlite_is_loaded_too(serve: Serve, tmp_path: Path) -> None:
    """A destination of another kind, which knows no schemas, holds the account as well."""
    api = serve(DemoAccount(120))
    database = f"sqlite:///{tmp_path}/jobs.db"
    done = backfill(
        api, "--destination", "sqlalchemy", DESTINATION__SQLALCHEMY__CREDENTIALS=database
    )
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "jobs__convertly_data.db")) as connection:
        assert sorted(connection.execute("SELECT id, status FROM jobs")) == listed(api.account)
    assert {path.name for path in tmp_path.glob("*.db")} == {"jobs__convertly_data.db", "jobs.db"}


@pytest.mark.slow
def test_another_account_is_refused(serve: Serve) -> None:
    """A dataset that holds another account is refused, with the arguments that help."""
    api = serve(DemoAccount(20))
    load_from(api)
    other = {"CONVERTLY_BASE_URL": api.url.replace("127.0.0.1", "localhost")}
    assert_refused(backfill(api, **other), 2, "holds the account of 127.0.0.1", "--dataset")
