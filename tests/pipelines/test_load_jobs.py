"""The script `pipelines/load_jobs.py`, run as a person runs it."""

import random
import re
import signal
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import dlt
import duckdb
import pytest
from convertly_source.loading.loads import configure
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from helpers.lists import SaysTooMany
from helpers.script import (
    SCRIPT,
    assert_refused,
    command,
    content,
    kill,
    listed,
    load,
    load_from,
    query,
)

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]


def test_the_demo_loads_3000_jobs_and_a_second_run_changes_nothing() -> None:
    """--demo needs no key, says what it did, and its SQL works; run again, it finds nothing new."""
    done = load("--demo")
    assert done.returncode == 0, done.stderr
    summary, place, hint, look = done.stdout.splitlines()
    readme = SCRIPT.parents[1].joinpath("README.md").read_text()
    assert summary in readme
    assert hint in readme
    assert look == f"Look at them: marimo run {SCRIPT.with_name('explore_jobs.py')}"
    assert f"{Path.cwd()}/convertly.duckdb" in place
    account = DemoAccount()
    assert content() == listed(account)
    counts = query(hint)
    assert sum(count for *_, count in counts) == 3000
    before = query("FROM convertly_data.jobs"), query("FROM convertly_data.jobs__results")
    assert "Loaded 0 jobs (0 new, 0 updated) and 0 results" in load("--demo").stdout
    assert before == (query("FROM convertly_data.jobs"), query("FROM convertly_data.jobs__results"))


def test_an_account_takes_the_place_of_the_demo(serve: Serve) -> None:
    """After a demo, the first run with a real host starts afresh, and a demo does not follow it."""
    load("--demo")
    api = serve(DemoAccount(120))
    real = {"CONVERTLY_BASE_URL": api.url.replace("127.0.0.1", "localhost")}
    done = load_from(api, **real)
    assert "The demo account makes way for yours." in done.stdout, done.stderr
    assert content() == listed(api.account)
    assert_refused(load("--demo"), 2, "localhost", "--dataset", "--full-refresh")
    assert content() == listed(api.account)
    assert load("--demo", "--dataset", "demo").returncode == 0


def test_without_a_key_the_way_on_is_named() -> None:
    """Without a key the script names CONVERTLY_API_KEY and --demo."""
    assert_refused(load(), 2, "CONVERTLY_API_KEY", "--demo")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start-date", "yesterday"),
        ("--start-date", "2026-06-01", "--end-date", "2026-05-01"),
        ("--end-date", "2026-05-01", "--start-date", "2026-05-01"),
        ("--status", "done"),
        ("--chunk-pages", "many"),
        ("--chunk-pages", "-1"),
        ("--nonsense",),
        ("--destination", "nowhere"),
    ],
)
def test_a_bad_argument_is_refused(arguments: tuple[str, ...]) -> None:
    """An argument or a window that can't be ends with exit code 2, and says which."""
    assert_refused(load(*arguments, CONVERTLY_API_KEY="cvly_x"), 2)


def test_a_refused_key_ends_with_2(serve: Serve) -> None:
    """A key that the API refuses is a setting to be mended."""
    assert_refused(load_from(serve(), CONVERTLY_API_KEY="cvly_wrong"), 2, "Invalid API key")


def test_an_api_that_is_down_ends_with_3() -> None:
    """An API that can't be reached is waited for, and then said to be so."""
    down = {"CONVERTLY_API_KEY": "cvly_x", "CONVERTLY_BASE_URL": "http://127.0.0.1:9"}
    assert_refused(load(**down), 3, "could not be reached")


def test_an_answer_that_is_not_documented_ends_with_4(serve: Serve) -> None:
    """A list that does not hold what it says is reported."""
    assert_refused(load_from(serve(SaysTooMany(DemoAccount(300)))), 4, "340", "300")


def test_a_plan_limit_ends_with_5(serve: Serve) -> None:
    """A used-up quota is said, with where to see the plan."""

    class UsedUp(DemoAPI):
        def answer(self, query: dict[str, str], key: str) -> Any:  # noqa: ARG002
            return 402, {"error": "Quota used up.", "upgradeUrl": "https://convertly.sh/plans"}

    assert_refused(load_from(serve(UsedUp(DemoAccount(1)))), 5, "https://convertly.sh/plans")


def test_any_other_error_ends_with_1(tmp_path: Path) -> None:
    """What nobody foresaw ends with 1 and a traceback."""
    (tmp_path / "not-a-folder").touch()
    done = load("--demo", DLT_DATA_DIR=str(tmp_path / "not-a-folder"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_destination_that_can_not_be_used_ends_with_1(serve: Serve, tmp_path: Path) -> None:
    """A file that is locked, or no database, is said in two lines, before the API is asked."""
    api = serve(DemoAccount(30))
    file = tmp_path / "convertly.duckdb"
    with duckdb.connect(str(file)):
        assert_refused(load_from(api), 1, "Could not set lock", "Close what else holds the file")
    file.write_text("not a database, but a text that is long enough")
    assert_refused(load_from(api), 1, "not a valid DuckDB database", "run again")
    assert not api.requests


def test_ctrl_c_says_what_is_loaded(serve: Serve) -> None:
    """Interrupted while the API keeps it waiting, the script ends at once; the next one goes on."""
    api = serve(DemoAccount(1500))
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    arguments = command("--chunk-pages", "3", **key)
    process = subprocess.Popen(**arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    is_over = Event()

    def keep_waiting(_: dict[str, str]) -> None:
        if len(api.requests) == 12:  # the first chunks are loaded
            process.send_signal(signal.SIGINT)
        if len(api.requests) >= 12:
            is_over.wait()

    api.fault = keep_waiting
    _, errors = process.communicate(timeout=50)  # a request would time out after 60 seconds
    is_over.set()
    api.fault = lambda _: None
    *_, first, second = errors.splitlines()
    said = re.fullmatch(r"Stopped. At least ([\d,]+) jobs of this run are loaded.", first)
    assert said
    assert 0 < int(said[1].replace(",", "")) <= len(content())
    assert second == "Nothing is lost: the next run goes on from there."
    assert process.returncode == 1
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)


@pytest.mark.parametrize("seed", range(2))
def test_ctrl_c_at_any_moment_loses_nothing(serve: Serve, seed: int) -> None:
    """Interrupted in extract, normalize or load, again and again, nothing is lost or doubled."""
    chance = random.Random(seed)
    api = serve(DemoAccount(1500))
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    for _ in range(4):
        has_begun = Event()
        api.before_answer = lambda _, has_begun=has_begun: has_begun.set()  # type: ignore[misc]
        process = subprocess.Popen(
            **command("--chunk-pages", "3", **key), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert has_begun.wait(50)
        try:
            process.communicate(timeout=chance.uniform(0, 3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=50)
            is_done = process.returncode in (0, -signal.SIGINT)  # after its last line
            assert is_done or "Stopped. " in errors, errors
            assert "Traceback" not in errors
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)


def test_dlt_settings_win_over_the_vendors_names(serve: Serve) -> None:
    """A key from dlt's configuration goes before CONVERTLY_API_KEY, and so does the address."""
    api = serve(DemoAccount(30))
    right = {"SOURCES__CONVERTLY__API_KEY": DEMO_KEY, "SOURCES__CONVERTLY__BASE_URL": api.url}
    wrong = {"CONVERTLY_API_KEY": "cvly_no", "CONVERTLY_BASE_URL": "http://127.0.0.1:9"}
    done = load(**right, **wrong)
    assert done.returncode == 0, done.stderr
    assert content() == listed(api.account)


def test_settings_are_read_from_the_folder(serve: Serve, tmp_path: Path) -> None:
    """A .dlt folder where the script is run holds its settings, the file's name among them."""
    api = serve(DemoAccount(30))
    (tmp_path / ".dlt").mkdir()
    secrets = f'sources.convertly.api_key = "{DEMO_KEY}"\ndestination.duckdb.credentials = "my.db"'
    (tmp_path / ".dlt" / "secrets.toml").write_text(secrets)
    (tmp_path / ".dlt" / "config.toml").write_text(f'sources.convertly.base_url = "{api.url}"')
    assert load("--dataset", "mine").returncode == 0
    assert query("SELECT count(*) FROM mine.jobs", "my.db") == [(30,)]


def test_both_tables_exist_without_any_result(serve: Serve) -> None:
    """After the first load jobs__results is there, empty, with all columns, and is filled later."""
    api = serve(DemoAccount(0))
    job = api.account.create()
    for rows in (0, 1):
        assert load_from(api).returncode == 0
        assert len(query("FROM convertly_data.jobs__results")) == rows
        api.account.finish(job)
        job["results"] = ["https://files.convertly.sh/a.webp?token=1"]
    values = query("SELECT job_id, value FROM convertly_data.jobs__results")
    assert values == [(job["id"], "https://files.convertly.sh/a.webp")]


def test_a_change_of_the_api_is_said_and_nothing_is_lost(serve: Serve) -> None:
    """A new field, one that disappears, another type: the load goes on, and says what is new."""
    api = serve(DemoAccount(30))
    assert "New in the API" not in load_from(api).stdout
    before = query("SELECT id, job_type, total_files FROM convertly_data.jobs ORDER BY id")
    one, two = (api.account.create() for _ in range(2))
    one |= {"priority": 3, "owner": {"name": "Ann"}, "tags": ["a"]}
    del one["job_type"]
    two |= {"priority": "high", "total_files": "many"}
    done = load_from(api)
    assert done.returncode == 0, done.stderr
    columns = [
        "jobs.owner__name (text)",
        "jobs.priority (double)",
        "jobs.priority__v_text (text)",
        "jobs.total_files__v_text (text)",
    ]
    said = [line for line in done.stdout.splitlines() if line.startswith("New in the API")]
    assert said == [
        f"New in the API: {', '.join(columns)}.",
        "New in the API: jobs__tags.value (text).",
    ]
    ids = [job["id"] for job in (one, two)]
    new = query(
        "SELECT job_type, total_files, total_files__v_text, priority, priority__v_text, owner__name"
        f" FROM convertly_data.jobs WHERE id IN {tuple(ids)} ORDER BY id = '{two['id']}'"
    )
    assert new == [
        (None, one["total_files"], None, 3, None, "Ann"),
        (two["job_type"], None, "many", None, "high", None),
    ]
    old = f"SELECT id, job_type, total_files FROM convertly_data.jobs WHERE id NOT IN {tuple(ids)}"
    assert query(f"{old} ORDER BY id") == before
    assert "New in the API" not in load_from(api).stdout


@pytest.mark.parametrize(
    ("destination", "is_emptied", "workers"),
    [("duckdb", True, 2), ("sqlalchemy", True, 1), ("filesystem", False, 2)],
)
def test_dlt_gets_the_settings_that_it_has_not(
    monkeypatch: pytest.MonkeyPatch, destination: str, *, is_emptied: bool, workers: int
) -> None:
    """Staging tables are emptied where there are any, and SQLite gets one writer."""
    monkeypatch.delenv("LOAD__TRUNCATE_STAGING_DATASET")
    Container()[PluggableRunContext].reload_providers()
    dlt.config["data_writer.file_max_items"] = 7
    configure(destination)
    assert dlt.config["load.truncate_staging_dataset"] is is_emptied
    assert dlt.config["load.workers"] == workers
    assert dlt.config["data_writer.file_max_items"] == 7
    Container()[PluggableRunContext].reload_providers()


def test_nothing_else_is_in_the_dataset(serve: Serve) -> None:
    """There are the documented tables and columns and dlt's own, and no second copy of a load."""
    api = serve(DemoAccount(300))
    for _ in range(2):
        del api.account.create()["id"]
        api.account.cancel(api.account.unfinished()[0])
        assert "WARN" not in load_from(api).stderr
    found = query(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " WHERE column_name NOT LIKE '\\_dlt\\_%' ESCAPE '\\'"
        " AND table_name NOT LIKE '\\_dlt\\_%' ESCAPE '\\'"
    )
    main = {(table, column) for schema, table, column in found if schema == "convertly_data"}
    documented = {(table, name) for table, (_, columns) in TABLES.items() for name in columns}
    assert main == documented | {("jobs__results", "id")}  # which the demo account's files have
    assert {schema for schema, *_ in found} <= {"convertly_data", "convertly_data_staging"}
    for table in {table for schema, table, _ in found if schema.endswith("_staging")}:
        assert query(f"SELECT count(*) FROM convertly_data_staging.{table}") == [(0,)]
    assert all(name == name.lower() and name.isidentifier() for row in found for name in row)


def test_an_empty_account_gives_empty_tables(serve: Serve) -> None:
    """An account without jobs gives both tables, and no error."""
    done = load_from(serve(DemoAccount(0)))
    assert "Loaded 0 jobs (0 new, 0 updated) and 0 results" in done.stdout, done.stderr
    tables = query(
        "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'jobs%' ORDER BY 1"
    )
    assert ("jobs",) in tables
    assert ("jobs__results",) in tables


def test_a_rejected_job_is_counted(serve: Serve) -> None:
    """Jobs that can't be stored are counted in the summary, once; the run ends with 0."""
    api = serve(DemoAccount(20))
    del api.account.jobs[5]["id"]
    done = load_from(api)
    assert (done.returncode, "1 rejected" in done.stdout) == (0, True)
    reasons = query("SELECT reason, raw->>'$.job_type' FROM convertly_data.rejected_jobs")
    assert reasons == [("no usable id", api.account.jobs[5]["job_type"])]
    assert "0 rejected" in load_from(api).stdout


def test_full_refresh_starts_over(serve: Serve) -> None:
    """--full-refresh drops what is there and loads all again."""
    api = serve(DemoAccount(150))
    load_from(api)
    api.account.jobs = api.account.jobs[:100]
    done = load_from(api, "--full-refresh")
    assert "Loaded 100 jobs (100 new, 0 updated)" in done.stdout, done.stderr
    assert content() == listed(api.account)
    assert "Loaded 0 jobs" in load_from(api).stdout


def test_datasets_and_files_do_not_share_a_cursor(serve: Serve, tmp_path: Path) -> None:
    """The state is the destination's: another dataset, or a deleted file, is loaded whole."""
    api = serve(DemoAccount(150))
    load_from(api)
    load_from(api, "--dataset", "other")
    for _ in range(3):
        api.account.create()
        load_from(api)
    assert load_from(api, "--dataset", "other").returncode == 0
    assert content() == content("other") == listed(api.account)
    (tmp_path / "convertly.duckdb").unlink()
    load_from(api)
    assert content() == listed(api.account)


def test_each_folder_has_a_file_of_its_own(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is that of the folder the script is run in, wherever it was run before."""
    api = serve(DemoAccount(20))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        done = load_from(api)
        assert "20 new" in done.stdout, done.stderr
        assert content() == listed(api.account)


def test_chunks_are_loads_of_their_own_and_cost_nothing(serve: Serve) -> None:
    """--chunk-pages splits a run into loads, each a prefix of history, for no further request."""
    api = serve(DemoAccount(1500))
    done = load_from(api, "--chunk-pages", "4")
    assert done.returncode == 0, done.stderr
    assert len(api.requests) <= -(-1500 // 99) + 3
    ends = query(
        "SELECT min(created_at), max(created_at) FROM convertly_data.jobs"
        " GROUP BY _dlt_load_id ORDER BY 1"
    )
    assert len(ends) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(ends))
    assert content() == listed(api.account)
    assert "1,500 new" in done.stdout
    assert load_from(api, "--chunk-pages", "0", "--full-refresh").returncode == 0
    loads = query("SELECT count(DISTINCT _dlt_load_id) FROM convertly_data.jobs")
    assert loads == [(1,)]


def test_a_window_in_chunks_comes_to_its_end(serve: Serve) -> None:
    """A window that is loaded in chunks goes on where the chunk before it ended."""
    api = serve(DemoAccount(1500))
    edge = api.account.jobs[1200]["created_at"]
    done = load_from(api, "--end-date", edge, "--chunk-pages", "3")
    assert "1,200 new" in done.stdout, done.stderr


@pytest.mark.parametrize("auth_method", ["bearer", "x-api-key"])
def test_the_key_is_nowhere(serve: Serve, tmp_path: Path, auth_method: str) -> None:
    """No key and no signed link is in an output or a file, however the run ends."""
    key = "cvly_a-key-that-is-a-secret"
    api = serve(DemoAPI(DemoAccount(150), key=key))
    job = api.account.create()
    del job["id"]  # rejected, with a link
    job["results"] = [
        "https://files.convertly.sh/a.webp?token=1",
        "data:text/plain;base64,aGVsbG8=",
    ]
    replies = [None, Reply(401, {"error": key}), Reply(418, key), Reply(503, {}), Reply(200, key)]
    outputs = []
    for reply in replies:
        api.fault = lambda _, reply=reply: reply  # type: ignore[misc]
        settings = {"RUNTIME__LOG_LEVEL": "DEBUG", "SOURCES__CONVERTLY__AUTH_METHOD": auth_method}
        outputs.append(load_from(api, CONVERTLY_API_KEY=key, **settings))
        api.account.finish(api.account.create())
    assert [done.returncode for done in outputs] == [0, 2, 4, 3, 4]
    texts = [text.encode() for done in outputs for text in (done.stdout, done.stderr)]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (key, "token=", "aGVsbG8", "H4sIAAAA"):
        assert not any(secret.encode() in text for text in texts), secret
    assert any(b"convertly" in text for text in texts)


def test_a_pending_load_is_finished_first(serve: Serve, tmp_path: Path) -> None:
    """A load that could not be written is finished by the next run, which then does its own."""
    api = serve(DemoAccount(150))
    load_from(api)
    late = api.account.create()
    with duckdb.connect(str(tmp_path / "convertly.duckdb")):  # a reader keeps the file locked
        assert load_from(api).returncode != 0
    later = api.account.create()
    done = load_from(api)
    assert done.returncode == 0, done.stderr
    assert {(late["id"], "pending"), (later["id"], "pending")} <= set(content())
    assert content() == listed(api.account)


def test_a_pending_load_is_kept_for_its_own_dataset(serve: Serve) -> None:
    """What was read for one dataset is not written into another one."""
    api = serve(DemoAccount(150))
    load_from(api)
    late = api.account.create()
    pipeline = dlt.pipeline("convertly", destination="duckdb", dataset_name="convertly_data")
    pipeline.extract(convertly_source(DEMO_KEY, api.url))
    done = load_from(api, "--dataset", "other")
    assert done.returncode == 2, done.stderr
    assert "was not finished" in done.stderr
    assert load_from(api).returncode == 0
    assert (late["id"], "pending") in content()
    assert load_from(api, "--dataset", "other").returncode == 0


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_load_that_was_cut_off_is_not_doubled(
    serve: Serve, tmp_path: Path, *, is_cut_off: bool
) -> None:
    """What was read is loaded by the next run, but a load that was begun is read again.

    dlt would write a file again that was written, but not yet noted as written: it gave two rows.
    """
    api = serve(DemoAccount(150))
    load_from(api)
    late = api.account.create()
    pipeline = dlt.pipeline("convertly", destination="duckdb", dataset_name="convertly_data")
    pipeline.extract(convertly_source(DEMO_KEY, api.url), loader_file_format="parquet")
    pipeline.normalize()
    if is_cut_off:
        package = next((tmp_path / "dlt").glob("pipelines/convertly/load/normalized/*"))
        [file] = package.glob("new_jobs/jobs.*.parquet")
        sql = f"INSERT INTO convertly_data_staging.jobs BY NAME SELECT * FROM '{file}'"
        with duckdb.connect(str(tmp_path / "convertly.duckdb")) as connection:
            connection.execute(sql)
        file.rename(package / "started_jobs" / file.name)
    requests = len(api.requests)
    done = load_from(api)
    assert done.returncode == 0, done.stderr
    assert ("Loaded 1 jobs" in done.stdout) is is_cut_off
    assert (late["id"], "pending") in content()
    assert content() == listed(api.account)
    assert len(api.requests) - requests <= 4


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_the_next_run_goes_on(serve: Serve, seed: int) -> None:
    """SIGKILL in extract, normalize or load, again and again: nothing is lost, nothing doubled."""
    chance = random.Random(seed)
    api = serve(DemoAccount(2500))
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    for _ in range(6):
        process = subprocess.Popen(
            **command("--chunk-pages", "5", **key),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(chance.uniform(1, 4))
        except subprocess.TimeoutExpired:
            kill(process)
        api.account.finish(chance.choice(api.account.unfinished()))
        api.account.create()
    done = load_from(api)
    assert done.returncode == 0, done.stderr
    assert content() == listed(api.account)
    places = query("SELECT job_id, _dlt_list_idx FROM convertly_data.jobs__results")
    assert len(set(places)) == len(places)
    finished = {job["id"] for job in api.account.jobs if job["results"] and job["completed_at"]}
    results = query("SELECT DISTINCT job_id FROM convertly_data.jobs__results")
    assert {key for (key,) in results} <= finished


def test_killed_after_a_chunk_it_is_not_read_again(serve: Serve) -> None:
    """What was loaded before the kill is not read again by the next run."""
    api = serve(DemoAccount(2500))
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    process = subprocess.Popen(**command("--chunk-pages", "3", **key), stdout=subprocess.DEVNULL)

    def kill_in_third_chunk(_: DemoAccount) -> None:
        if len(api.requests) == 16:  # with 4 ahead, the third chunk is being read
            kill(process)

    api.before_answer = kill_in_third_chunk
    process.wait()
    api.before_answer = lambda _: None
    loaded = len(content())
    assert loaded >= 300
    api.requests.clear()
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)
    assert len(api.requests) <= (2500 - loaded) // 99 + 2 * 5 + 4
