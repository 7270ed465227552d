"""The command line: its arguments, what it prints, and how it ends."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from helpers.lists import in_no_order, old_page_swapped, oldest_first
from helpers.script import (
    ROOT,
    Done,
    access,
    assert_refused,
    content,
    held,
    listed,
    load,
    load_from,
    query,
    run,
    run_apart,
    started,
)
from helpers.servers import running
from helpers.warehouse import Warehouse, load_into

from convertly_source import cli
from convertly_source.cli import HINTS, main, parser
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply, newest_first
from convertly_source.loading import Target
from convertly_source.loading.locks import file_lock
from convertly_source.loading.target import commit_state, restore, working_folder

Serve = Callable[..., DemoAPI]
FULL = Path("/dev/full")
KEY = "cvly_a-key-that-is-a-secret"
COMMANDS = ("load", "verify", "backfill", "check", "tables", "explore", "init")


@pytest.fixture
def api(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> DemoAPI:
    """Serve an account whose key and address are set by the vendor's names."""
    api = serve(DemoAccount(250))
    for name, value in access(api).items():
        monkeypatch.setenv(name, value)
    return api


def options_of(command: str) -> set[str]:
    """Return the options that a command takes, by its help."""
    commands: Any = next(action.choices for action in parser()._actions if action.choices)
    return {name for action in commands[command]._actions for name in action.option_strings}


def test_new_and_updated_jobs_are_counted(api: DemoAPI) -> None:
    """The summary tells new jobs from those that were updated, and what was rejected or removed."""
    load()
    one, two, *_ = api.account.unfinished()
    api.account.finish(one)
    api.account.cancel(two)
    api.account.create()
    del api.account.create()["id"]
    done = load("--chunk-pages", "1")
    assert done.stdout.startswith("Loaded 2 jobs (1 new, 1 updated) and ")
    assert "; 1 rejected, 1 removed.\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["order", "My-Data", "2026", "a b", 'x"y', "Größe", "main"])
def test_the_example_is_right_for_each_dataset(api: DemoAPI, dataset: str) -> None:
    """The SQL that is printed has the name of the dataset as the database takes it."""
    done = load_from(api, "--dataset", dataset)
    assert done.returncode == 0, done.stderr
    [sql] = [line for line in done.stdout.splitlines() if line.startswith("  SELECT")]
    assert sum(count for *_, count in query(sql)) == len(api.account.jobs)


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("command", ["load", "backfill"])
def test_other_names_of_tables_are_refused(api: DemoAPI, command: str) -> None:
    """A naming convention that names the child table otherwise is refused before reading."""
    done = run(command, **access(api), SCHEMA__NAMING="direct")
    assert_refused(done, 2, "direct gives the tables other names", "snake_case")
    assert load_from(api, SCHEMA__NAMING="sql_cs_v1").returncode == 0


def test_a_lake_has_no_count_of_new_jobs(api: DemoAPI, tmp_path: Path) -> None:
    """For a lake the summary leaves out what only SQL can count, and the app."""
    api.account.jobs = api.account.jobs[:20]
    lake = {"DESTINATION__FILESYSTEM__BUCKET_URL": f"file://{tmp_path}/lake"}
    done = load("--destination", "filesystem", **lake)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert re.fullmatch(r"Loaded 20 jobs and \d+ results; 0 rejected, 0 removed.", first)
    assert second == "20 listed, 20 held."
    assert third.startswith("They are in convertly_data of ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["load", "--start-date", "yesterday"], ["start_date", "'yesterday'"]),
        (["load", "--start-date", "2026-06-01", "--end-date", "2026-05-01"], ["end_date"]),
        (["load", "--end-date", "2026-05-01", "--start-date", "2026-05-01"], ["end_date"]),
        (["load", "--start-date", "2026"], ["start_date '2026'", "2026-05-01"]),
        (["load", "--status", "done"], ["status 'done'", "pending, processing, completed"]),
        (["load", "--chunk-pages", "many"], ["--chunk-pages"]),
        (["load", "--chunk-pages", "-1"], ["--chunk-pages", "negative"]),
        (["load", "--wait", "-1"], ["--wait", "no time"]),
        (["load", "--wait", "nan"], ["--wait", "no time"]),
        (["load", "--nonsense"], ["Unrecognized arguments: --nonsense.", "load --help"]),
        (["check", "--demo"], ["--demo", "See convertly-source check --help."]),
        (["--nonsense", "load"], ["See convertly-source --help."]),
        (["load", "--destination", "nowhere"], ["'nowhere'", "/destinations"]),
        (["load", "--destination", "filesystem", "--table-format", "x"], ["delta, iceberg"]),
        (["load", "--table-format", "delta"], ["--destination filesystem"]),
        (["load", "--models", "--destination", "filesystem"], ["views", "duckdb"]),
        (["load", "--open", "--destination", "filesystem"], ["views", "duckdb"]),
        (["explore", "--destination", "filesystem"], ["views", "duckdb"]),
        (["backfill", "--start", "yesterday"], ["start 'yesterday'"]),
        (["backfill", "--start", "2027-01-01"], ["start '2027-01-01'", "2026-05-"]),
        (["backfill", "--days", "0"], ["0", "minute"]),
        (["backfill", "--days", "nan"], ["nan", "minute"]),
        (["backfill", "--days", "many"], ["--days"]),
        (["backfill", "--destination", "nowhere"], ["'nowhere'"]),
        (["backfill", "--destination", "filesystem"], ["ordinary runs"]),
        ([], ["COMMAND"]),
        (["fly"], ["COMMAND", "load"]),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_refused(api: DemoAPI, arguments: list[str], words: list[str]) -> None:
    """An argument or a window that is not possible ends with 2, which it names, with a remedy."""
    assert_refused(run(*arguments), 2, *words)
    assert "backfill" in arguments or not api.requests
    assert not Path("convertly.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["load", "--api-key", KEY], "--api-key."),
        (["load", f"--api-key={KEY}"], "--api-key."),
        (["--api-key", KEY, "load"], "COMMAND"),
        (["load", f"-k{KEY}"], "-k."),
        (["load", KEY], "Unrecognized arguments."),
        ([f"it's {KEY}"], "COMMAND"),
        (["load", f"--demo={KEY}"], "--demo"),
        (["load", f"--d={KEY} \n"], "--destination, --dataset, --demo"),
        (["backfill", "--days", KEY], "--days"),
    ],
)
def test_a_value_in_a_wrong_place_is_not_printed(arguments: list[str], named: str) -> None:
    """Only the option is named: what was typed beside it may be a key."""
    done = run(*arguments)
    assert_refused(done, 2, named)
    assert KEY not in done.stdout + done.stderr


def incompatible_state(api: DemoAPI) -> Done:
    """Load with the state of another version."""
    load_into(Target(), api)
    pipeline = Target().pipeline("other")
    restore(pipeline)

    def change(state: Any) -> None:
        del state["sources"]["convertly"]["resources"]["jobs"]["all"]["cursor"]

    commit_state(pipeline, change)
    return load()


def busy(api: DemoAPI) -> Done:
    """Load while another load has the lock of the target."""
    place = Target().place()
    with file_lock(working_folder(place), place):
        return load_from(api)


def other_account(api: DemoAPI) -> Done:
    """Load with a key of another account at the same host."""
    load_into(Target(), api)
    with DemoAPI(DemoAccount(150, seed=1)).serve() as other:
        return load_from(other)


HINTED: dict[str, Callable[[DemoAPI], Done]] = {
    "api_key": lambda _: load(CONVERTLY_API_KEY=""),
    "dataset": lambda api: (
        load(CONVERTLY_BASE_URL=api.url.replace("127.0.0.1", "localhost")) and load("--demo")
    ),
    "state": incompatible_state,
    "trust_account": other_account,
    "wait_seconds": busy,
    "table_format": lambda _: load("--destination", "filesystem", "--table-format", "x"),
}


@pytest.mark.parametrize("setting", HINTS)
def test_each_hint_follows_a_real_error(api: DemoAPI, setting: str) -> None:
    """An error that an argument can help with names that argument, which there is."""
    code = 1 if setting == "wait_seconds" else 2
    assert_refused(HINTED[setting](api), code, *HINTS[setting].values())
    for option, hint in HINTS[setting].items():
        named = f"--{option.replace('_', '-')}"
        assert named in options_of("load")
        assert set(re.findall(r"--[a-z-]+", hint)) == {named}


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("command", ["load", "verify", "backfill"])
def test_an_account_is_trusted_by_the_settings(api: DemoAPI, serve: Serve, command: str) -> None:
    """The setting that the error names helps as the argument does."""
    load_into(Target(), api)
    other = serve(DemoAccount(30, seed=1))
    assert_refused(run(command, **access(other)), 2, "set trust_account")
    done = run(command, **access(other), SOURCES__CONVERTLY__TRUST_ACCOUNT="true")
    assert done.returncode == 0, done.stderr


def test_a_hint_names_only_what_the_command_has() -> None:
    """`check` has no demo account to try, `load` and `backfill` have."""
    for command in ("load", "backfill", "check"):
        done = run(command)
        assert_refused(done, 2, "There is no API key.")
        assert ("--demo" in done.stderr) is (command != "check")


def test_without_a_key_the_ways_out_are_named() -> None:
    """Without a key the error names CONVERTLY_API_KEY and the demo."""
    assert_refused(load(), 2, "There is no API key.", "CONVERTLY_API_KEY", "--demo")


@pytest.mark.parametrize("command", ["load", "backfill", "check"])
def test_each_command_has_the_same_exit_codes(api: DemoAPI, command: str) -> None:
    """A refused key ends with 2, an API that is away with 3, an unknown answer 4, a quota 5."""
    assert_refused(run(command, CONVERTLY_API_KEY="cvly_wrong"), 2, "Invalid API key")
    away = {"CONVERTLY_BASE_URL": "http://127.0.0.1:9"}
    assert_refused(run(command, **away), 3, "could not be reached")
    api.fault = lambda _: Reply(418, {"error": "No \x1b[31m."})
    assert_refused(run(command), 4, "answered 418: No  [31m.")
    quota = {"error": "Quota used up.", "upgradeUrl": "https://convertly.sh/plans"}
    api.fault = lambda _: Reply(402, quota)
    assert_refused(run(command), 5, "https://convertly.sh/plans")


def test_an_undocumented_answer_ends_with_4(api: DemoAPI) -> None:
    """An answer that is no page of jobs is reported, with what to do."""
    api.fault = lambda _: Reply(200, {"jobs": "none"})
    assert_refused(load_from(api), 4, "`jobs`", "report it")


@pytest.mark.parametrize("command", ["load", "backfill"])
def test_a_destination_that_fails_ends_with_1(api: DemoAPI, tmp_path: Path, command: str) -> None:
    """A file that is locked, or is no database, is reported in two lines, with what to do."""
    file = tmp_path / "convertly.duckdb"
    with held(file):
        assert_refused(run(command), 1, "Could not set lock", "Close what else holds the file")
    file.write_text("not a database, but a text that is long enough")
    assert_refused(run(command), 1, "not a valid DuckDB database", "run again")
    assert command == "backfill" or not api.requests


def test_an_unforeseen_error_is_a_traceback(api: DemoAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that no setting mends is not hidden."""
    monkeypatch.setattr("tenacity.nap.time.sleep", None)
    api.fault = lambda _: Reply(503, {})
    with pytest.raises(TypeError):
        run("check")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["load", "verify", "backfill"])
def test_a_folder_that_is_none_ends_with_1(tmp_path: Path, command: str) -> None:
    """What the system refuses is told in two lines, with its path."""
    (tmp_path / "not-a-folder").touch()
    done = run_apart(command, "--demo", DLT_DATA_DIR=str(tmp_path / "not-a-folder"))
    assert_refused(done, 1, "not-a-folder", "Not a directory.", "Correct the path")


@pytest.mark.slow
def test_a_current_folder_that_is_gone_ends_with_1(api: DemoAPI) -> None:
    """A folder that was deleted beneath the shell is no traceback either."""
    Path("gone").mkdir()
    command = f"cd gone; rmdir ../gone; exec {sys.executable} -m convertly_source check"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert_refused(done, 1, "No such file or directory.", "Correct the path")
    assert not api.requests


@pytest.mark.skipif(not FULL.exists(), reason="this system has none")
def test_an_output_that_is_full_ends_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    """A print that fails ends in two lines, and Python does not report it again on exit."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with FULL.open("w") as output, redirect_stdout(output):
            assert main(["tables"]) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "No space left on device."
    assert "free space" in second


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_output_is_no_fault(
    api: DemoAPI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`convertly-source load >&-` loads as ever, and so does `2>&-`."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, name, None)
    try:
        assert main(["load"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
        getattr(sys, name).close()
    assert content() == listed(api.account)


def test_ctrl_c_ends_the_process_in_two_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, it ends at once with 1, and tells what is loaded."""
    codes = list[int]()
    monkeypatch.setattr(os, "_exit", codes.append)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["tables"]) == 0
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert codes == [1]
    assert capfd.readouterr().err.splitlines() == [
        "Stopped. At least 0 jobs of this run are loaded.",
        "Nothing is lost: the next run continues from there.",
    ]


def test_a_reader_that_has_ended_ends_it_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    """`convertly-source tables | head -1` ends without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    before = signal.getsignal(signal.SIGINT)
    try:
        with open(writer, "w") as output, redirect_stdout(output):  # noqa: PTH123
            assert main(["tables"]) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert not capfd.readouterr().err


def test_dlts_settings_win_over_the_vendors_names(serve: Serve) -> None:
    """A key from dlt's configuration takes precedence over CONVERTLY_API_KEY; so does a URL."""
    api = serve(DemoAccount(30))
    right = {"SOURCES__CONVERTLY__API_KEY": DEMO_KEY, "SOURCES__CONVERTLY__BASE_URL": api.url}
    wrong = {"CONVERTLY_API_KEY": "cvly_no", "CONVERTLY_BASE_URL": "http://127.0.0.1:9"}
    done = load(**right, **wrong)
    assert done.returncode == 0, done.stderr
    assert content() == listed(api.account)


def test_settings_are_read_from_the_folder(serve: Serve, tmp_path: Path) -> None:
    """A .dlt folder in the current one holds settings, the file's name among them."""
    api = serve(DemoAccount(30))
    (tmp_path / ".dlt").mkdir()
    secrets = f'sources.convertly.api_key = "{DEMO_KEY}"\ndestination.duckdb.credentials = "my.db"'
    (tmp_path / ".dlt" / "secrets.toml").write_text(secrets)
    (tmp_path / ".dlt" / "config.toml").write_text(f'sources.convertly.base_url = "{api.url}"')
    done = load("--dataset", "mine")
    assert done.returncode == 0, done.stderr
    assert query("SELECT count(*) FROM mine.jobs", "my.db") == [(30,)]
    assert "--dataset=mine" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("how", "auth_method"),
    [
        (run, "bearer"),
        (run, "x-api-key"),
        pytest.param(run_apart, "bearer", marks=pytest.mark.slow),
    ],
)
def test_the_key_is_nowhere(
    serve: Serve, tmp_path: Path, how: Callable[..., Done], auth_method: str
) -> None:
    """No key and no signed link is in an output or a file, however the run ends."""
    api = serve(DemoAPI(DemoAccount(150), key=KEY))
    job = api.account.create()
    del job["id"]  # rejected, with a link
    job["results"] = [
        "https://files.convertly.sh/a.webp?token=1",
        "data:text/plain;base64,aGVsbG8=",
    ]
    replies = [None, Reply(401, {"error": KEY}), Reply(418, KEY), Reply(503, {}), Reply(200, KEY)]
    settings = {"RUNTIME__LOG_LEVEL": "DEBUG", "SOURCES__CONVERTLY__AUTH_METHOD": auth_method}
    outputs = []
    for reply in replies:
        api.fault = lambda _, reply=reply: reply  # type: ignore[misc]
        outputs.append(how("load", **access(api) | {"CONVERTLY_API_KEY": KEY} | settings))
        api.account.finish(api.account.create())
    assert [done.returncode for done in outputs] == [0, 2, 4, 3, 4]
    assert all("|[DEBUG]|" in done.stderr for done in outputs)
    texts = [text.encode() for done in outputs for text in (done.stdout, done.stderr)]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (KEY, "token=", "aGVsbG8", "H4sIAAAA"):
        assert not any(secret.encode() in text for text in texts), secret
    assert any(b"convertly" in text for text in texts)


def test_the_tables_are_those_of_a_warehouse(warehouse: Warehouse, serve: Serve) -> None:
    """`tables` prints each table and column that there is, but dlt's own."""
    account = DemoAccount(20)
    del account.jobs[3]["id"]
    api = serve(account)
    warehouse.load(api)
    account.cancel(account.unfinished()[0])
    warehouse.load(api)
    printed, name = set(), ""
    for line in run("tables").stdout.splitlines()[2:]:
        _, table, column, *_ = (cell.strip(" `") for cell in line.split("|"))
        name = table or name
        if column:
            printed.add((name, column))
    found = warehouse.query(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'data' AND NOT contains(concat(table_name, column_name), '_dlt_')"
    )
    assert printed == {*found}


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (newest_first, "250 jobs, newest first, created from 2026-05-01 0"),
        (oldest_first, "250 jobs, oldest first, created from 2026-05-01 0"),
        (in_no_order, "250 jobs, in no order: each run will read all of them."),
        (old_page_swapped, "250 jobs, in no order: each run will read all of them."),
    ],
)
def test_check_shows_settings_and_the_account(api: DemoAPI, order: Any, text: str) -> None:
    """Settings with their origin, the API, the number of jobs, their order and time span."""
    api.order = order
    done = run("check", SOURCES__CONVERTLY__PAGE_SIZE="50")
    assert done.returncode == 0
    assert max(int(request["limit"]) for request in api.requests) == 50
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "api_key ***, from CONVERTLY_API_KEY" in lines
    assert f"base_url {api.url}, from CONVERTLY_BASE_URL" in lines
    assert "page_size 50, from Environment Variables" in lines
    assert "auth_method bearer, by default" in lines
    assert "The API at 127.0.0.1 answers, and accepts the key." in lines
    assert text in done.stdout
    assert DEMO_KEY not in done.stdout


def test_check_names_the_file_of_a_setting(api: DemoAPI) -> None:
    """`.dlt` in the current folder is read, and named as the origin."""
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text("sources.convertly.page_size = 50")
    assert "50, from config.toml" in run("check").stdout
    assert len(api.requests) == 2


def test_check_of_an_empty_account(api: DemoAPI) -> None:
    """An account without jobs is no error."""
    api.account.jobs = []
    done = run("check")
    assert (done.returncode, "It has no jobs yet." in done.stdout) == (0, True)


def test_check_refuses_settings_before_it_asks(api: DemoAPI) -> None:
    """A setting that is not possible is named before anything is asked."""
    done = run("check", SOURCES__CONVERTLY__PAGE_SIZE="many")
    assert (done.returncode, "page_size" in done.stderr) == (2, True)
    assert not api.requests


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note the modules that this process is to run as programs, with their arguments."""
    noted = list[list[str]]()
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(cli, "run_module", lambda name, **_: noted.append([name, *sys.argv[1:]]))
    return noted


def test_explore_runs_the_app_on_what_is_loaded(programs: list[list[str]]) -> None:
    """`explore` starts marimo, with the destination and dataset that were given."""
    app = str(ROOT / "pipelines" / "explore_jobs.py")
    for arguments in ([], ["--destination=postgres", "--dataset=mine"]):
        assert run("explore", *arguments).returncode == 0
        assert programs.pop() == ["marimo", "run", app, "--", *arguments]


@pytest.mark.covers
@pytest.mark.slow
def test_open_explores_after_a_load(api: DemoAPI, programs: list[list[str]]) -> None:
    """`load --open` loads, makes the views, and then runs the app."""
    done = load("--open", "--dataset", "mine")
    assert done.returncode == 0, done.stderr
    assert len(query("FROM mine.job_facts")) == len(api.account.jobs)
    assert [program[-1] for program in programs] == ["--dataset=mine"]


@pytest.mark.slow
def test_ctrl_c_ends_the_app(api: DemoAPI, tmp_path: Path) -> None:
    """`explore` serves the app until a Ctrl-C, which is no fault."""
    assert load_from(api).returncode == 0
    folders = {name: str(tmp_path) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    app = started("explore", BROWSER="true", **folders)
    lines = iter(app.stdout or ())
    port = next(line.rpartition(":")[2] for line in lines if "URL:" in line)
    with running(app, lambda: urlopen(f"http://127.0.0.1:{int(port)}").close(), signal.SIGINT):
        pass
    _, errors = app.communicate()
    assert (app.returncode, "Traceback" in errors) == (0, False)


def test_commands_are_printed_for_the_shell_of_the_system() -> None:
    """Arguments that need quotes have those of the system's shell."""
    for system, quoted in (("posix", "'--dataset=my jobs'"), ("nt", '"--dataset=my jobs"')):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "name", system)
            assert cli._as_typed(["explore", "--dataset=my jobs"]) == f"explore {quoted}"


def test_the_app_names_what_it_needs(api: DemoAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the app is refused at once, and a load names the command to install it."""
    monkeypatch.setitem(sys.modules, "altair", None)
    for arguments in (["load", "--open"], ["explore"]):
        assert_refused(run(*arguments), 2, "needs marimo and altair", "pip install", "[explore]")
    assert not api.requests
    look = load().stdout.splitlines()[-1]
    command, _, explore = look.removeprefix("Look at them: ").partition(" && ")
    assert shlex.split(command)[:2] == ["pip", "install"]
    assert "[explore]" in command
    assert explore == "convertly-source explore"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # this module imports it too
def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m convertly_source` ends with the exit code."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["convertly_source", "tables"])
    try:
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("convertly_source", run_name="__main__")
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` prints what a command does, and each of its options."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in options_of(command))
