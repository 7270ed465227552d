"""`python -m convertly_source`: whether a load will work, and the tables that it fills."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.lists import in_no_order, oldest_first
from helpers.warehouse import Warehouse

from convertly_source.__main__ import main
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply, newest_first
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]
README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def api(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> DemoAPI:
    """Serve an account whose key and address are set by the vendor's names."""
    api = serve(DemoAccount(250))
    monkeypatch.setenv("CONVERTLY_API_KEY", DEMO_KEY)
    monkeypatch.setenv("CONVERTLY_BASE_URL", api.url)
    return api


def test_the_readme_has_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's table of tables is what `tables` prints."""
    assert main(["tables"]) == 0
    assert capsys.readouterr().out in README.read_text()


def test_the_tables_are_those_of_a_warehouse(warehouse: Warehouse, serve: Serve) -> None:
    """Each table has the columns that are said."""
    account = DemoAccount(20)
    del account.jobs[3]["id"]
    api = serve(account)
    warehouse.load(api)
    account.cancel(account.unfinished()[0])
    warehouse.load(api)
    for table, (_, columns) in TABLES.items():
        found = [name for (name, *_) in warehouse.query(f"DESCRIBE {table}")]
        assert set(columns) <= set(found)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (newest_first, "250 jobs, newest first, created from 2026-05-01 0"),
        (oldest_first, "250 jobs, oldest first, created from 2026-05-01 0"),
        (in_no_order, "250 jobs, in no order of age: each run will read all of them."),
    ],
)
def test_check_says_what_there_is(
    api: DemoAPI,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    order: Any,
    said: str,
) -> None:
    """Settings with their origin, the API, the key, the number of jobs, their order and ages."""
    api.order = order
    monkeypatch.setenv("SOURCES__CONVERTLY__PAGE_SIZE", "50")
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "api_key ***, from CONVERTLY_API_KEY" in lines
    assert f"base_url {api.url}, from CONVERTLY_BASE_URL" in lines
    assert "page_size 50, from Environment Variables" in lines
    assert "auth_method bearer, by default" in lines
    assert "The API at 127.0.0.1 answers, and takes the key." in lines
    assert said in out
    assert DEMO_KEY not in out


def test_check_of_an_empty_account(api: DemoAPI, capsys: pytest.CaptureFixture[str]) -> None:
    """An account without jobs is no error."""
    api.account.jobs = []
    assert main(["check"]) == 0
    assert "It has no jobs yet." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code"), [(401, 2), (403, 5), (418, 4), (503, 3), (200, 4)], ids=str
)
def test_check_ends_as_a_load_does(
    api: DemoAPI, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    """What will not work is said in two lines, with the exit code that a load would have."""
    api.fault = lambda _: Reply(status, {"error": "No \x1b[31m."})
    assert main(["check"]) == code
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert f"answered {status}: No  [31m." in first
    assert second


def test_check_refuses_settings(
    api: DemoAPI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that can't be is said before anything is asked."""
    monkeypatch.setenv("SOURCES__CONVERTLY__PAGE_SIZE", "many")
    assert main(["check"]) == 2
    assert "page_size" in capsys.readouterr().err
    assert not api.requests


def test_what_nobody_foresaw_is_a_traceback(api: DemoAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that no setting mends is not hidden."""
    monkeypatch.setattr("tenacity.nap.time.sleep", None)
    api.fault = lambda _: Reply(503, {})
    with pytest.raises(TypeError):
        main(["check"])


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # this module imports it too
def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m convertly_source` ends with the exit code."""
    monkeypatch.setattr(sys, "argv", ["convertly_source", "tables"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("convertly_source", run_name="__main__")
    assert caught.value.code == 0


def test_it_reads_the_settings_of_the_folder(api: DemoAPI) -> None:
    """`.dlt` in the current folder is read, and named."""
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text("sources.convertly.page_size = 50")
    command = [sys.executable, "-m", "convertly_source", "check"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert "50, from config.toml" in done.stdout
    assert len(api.requests) == 2
