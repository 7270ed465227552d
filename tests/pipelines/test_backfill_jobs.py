"""The script `pipelines/backfill_jobs.py`, run as a person runs it."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from helpers.script import (
    Done,
    assert_refused,
    command,
    content,
    kill,
    listed,
    load_from,
    query,
)

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "backfill_jobs.py"
Serve = Callable[..., DemoAPI]


def started(api: DemoAPI, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start the script, with the account of `api`."""
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    how = command(*arguments, **key | environment)
    how["args"][1] = str(SCRIPT)
    return subprocess.Popen(**how, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def backfill(api: DemoAPI, *arguments: str, **environment: str) -> Done:
    """Run the script to its end, with the account of `api`."""
    process = started(api, *arguments, **environment)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def windows(done: Done) -> list[int]:
    """List the numbers of the windows that a run has loaded."""
    return [int(number) for number in re.findall(r"^(\d+) of \d+: ", done.stdout, re.MULTILINE)]


def test_the_demo_is_loaded_window_by_window() -> None:
    """--demo needs no key; each window has a line, and the last line is a command that goes on."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--demo", "--days", "50"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert windows(done) == [1, 2, 3]
    assert re.search(r"^1 of 3: 2026-05-01 00:00 to 2026-06-20 00:00, 1,\d+ jobs", done.stdout)
    assert "All 3,000 jobs of these windows are in convertly_data of duckdb:" in done.stdout
    assert content() == listed(DemoAccount())
    totals = re.findall(r" of ([\d,]+) jobs read", done.stderr)
    assert set(totals) == {"3,000"}


def test_an_ordinary_run_goes_on_as_it_says(serve: Serve) -> None:
    """The command that it ends with follows what has not ended, and makes no job new."""
    api = serve(DemoAccount(300))
    done = backfill(api, "--dataset", "history")
    [arguments] = re.findall(r"load_jobs.py (.*)", done.stdout)
    for job in api.account.unfinished():
        api.account.finish(job)
    api.account.finish(api.account.create())
    loaded = load_from(api, *arguments.split())
    assert "(1 new, " in loaded.stdout, loaded.stderr
    assert content("history") == listed(api.account)


def test_a_killed_run_goes_on_with_its_window(serve: Serve) -> None:
    """Killed in the third window, the next run goes on with it, and ends with all jobs.

    A run into another dataset has nothing to do with it.
    """
    api = serve(DemoAccount(600))
    process = started(api, "--days", "5")
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(2)]
    kill(process)
    process.communicate()
    assert [line[:6] for line in lines] == ["1 of 5", "2 of 5"]
    other = backfill(api, "--days", "5", "--dataset", "other", "--end", "2026-05-08")
    assert windows(other) == [1, 2]
    done = backfill(api, "--days", "5")
    assert done.returncode == 0, done.stderr
    assert windows(done) in ([3, 4, 5], [4, 5])  # it may have been quick
    assert content() == listed(api.account)
    leftovers = query("SELECT count(*) FROM duckdb_schemas() WHERE schema_name LIKE '%staging%'")
    assert leftovers == [(0,)]


def test_notes_are_not_believed_against_the_warehouse(serve: Serve, tmp_path: Path) -> None:
    """A file that was deleted is loaded whole; and so is all after a run that came to its end."""
    api = serve(DemoAccount(300))
    for is_killed in (True, False):
        process = started(api, "--days", "3")
        assert process.stdout
        assert process.stdout.readline().startswith("1 of 4")
        if is_killed:
            kill(process)
            (tmp_path / "convertly.duckdb").unlink()
        process.communicate()
    assert windows(backfill(api, "--days", "3")) == [1, 2, 3, 4]
    assert content() == listed(api.account)


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start", "yesterday"),
        ("--start", "2027-01-01"),
        ("--days", "0"),
        ("--days", "many"),
        ("--destination", "nowhere"),
        ("--destination", "filesystem"),
    ],
)
def test_a_bad_argument_is_refused(serve: Serve, arguments: tuple[str, ...]) -> None:
    """An argument that can't be ends with exit code 2, and is said in two lines."""
    assert_refused(backfill(serve(), *arguments), 2)


def test_errors_end_as_those_of_load_jobs(serve: Serve) -> None:
    """A refused key ends with 2, an API that is away with 3, and a locked file with 1."""
    api = serve()
    assert_refused(backfill(api, CONVERTLY_API_KEY="cvly_wrong"), 2, "Invalid API key")
    assert_refused(backfill(api, CONVERTLY_BASE_URL="http://127.0.0.1:9"), 3, "be reached")
    with duckdb.connect("convertly.duckdb"):
        assert_refused(backfill(api), 1, "Could not set lock")
