"""`pipelines/airflow_dag.py` in real Airflows, alone in the DAGs folder."""

import ast
import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import psycopg2
import pytest
from helpers.airflows import AIRFLOW_RUN, DAG, PYTHONS, Airflow
from helpers.docs import PIPELINES, blocks
from helpers.history import Ask, assert_equal, schemas
from helpers.script import access
from helpers.servers import postgres

from convertly_source.demo import DemoAccount, DemoAPI, Reply
from convertly_source.tables.schema import TABLES

# One worker makes each Airflow, once.
pytestmark = [pytest.mark.no_cover, pytest.mark.xdist_group("airflow")]
Serve = Callable[..., DemoAPI]
KEY = "cvly_a-key-that-is-a-secret"
# It ends the minutes of waiting before another try.
AFTER_AN_HOUR = """
    UPDATE task_instance SET end_date = end_date - INTERVAL '1 hour'
    WHERE state = 'up_for_retry' RETURNING task_id"""


@pytest.fixture(scope="session", params=PYTHONS)
def airflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Make an Airflow of each version."""
    return Airflow.make(request.param, tmp_path_factory.mktemp("airflow") / "home")


def states(airflow: Airflow, dag: str) -> list[tuple[Any, ...]]:
    """List the tasks of the last run of a DAG that were not skipped: state and number of tries."""
    return airflow.ask(
        "SELECT task_id, state, try_number FROM task_instance WHERE state <> 'skipped'"
        " AND run_id = (SELECT run_id FROM dag_run"
        f" WHERE dag_id = '{dag}' ORDER BY id DESC LIMIT 1) ORDER BY task_id, map_index"
    )


def assert_no_key(airflow: Airflow, *outputs: str) -> None:
    """Check that the key is in no output, no log, and no row of Airflow's SQLite file."""
    texts = [path.read_bytes() for path in airflow.home.rglob("*") if path.is_file()]
    assert any(b"load_jobs" in text for text in texts)
    assert not any(KEY.encode() in text for text in [*texts, *map(str.encode, outputs)])


def add_dag(airflow: Airflow, name: str) -> None:
    """Add a DAG that `pipelines/README.md` shows to the DAGs folder."""
    [dag] = [block.text for block in blocks(PIPELINES, "python") if f"def {name}(" in block.text]
    (airflow.home / "dags" / f"{name}.py").write_text(dag)


def extras(airflow: Airflow) -> list[Any]:
    """List what the events of assets tell, in their order."""
    table = {"3.3.2": "asset_event", "2.11.2": "dataset_event"}[airflow.version]
    found = [extra for (extra,) in airflow.ask(f"SELECT extra FROM {table} ORDER BY id")]
    return [json.loads(extra) if isinstance(extra, str) else extra for extra in found]


@pytest.mark.slow
def test_the_dags_are_imported_without_a_warning(airflow: Airflow) -> None:
    """All DAGs are there, without error or warning, and the waits between retries grow."""
    done = airflow.run(str(AIRFLOW_RUN))
    [found] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found["dags"] == ["convertly_backfill", "convertly_jobs", "convertly_verify"]
    assert (found["errors"], found["warnings"]) == ({}, {})
    assert found["growth"] == {"3.3.2": 2, "2.11.2": True}[airflow.version]
    assert found["endless"] == []


@pytest.mark.slow
@pytest.mark.parametrize("airflow", ["3.3.2"], indirect=True)
def test_the_dag_of_the_readme_loads_the_account(
    airflow: Airflow, tmp_path: Path, serve: Serve, in_postgres: Ask
) -> None:
    """The short DAG that `pipelines/README.md` shows loads the account."""
    airflow = airflow.copy(tmp_path / "home")
    add_dag(airflow, "my_jobs")
    api = serve(DemoAccount(150))
    in_postgres("DROP SCHEMA IF EXISTS convertly_data CASCADE")
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"]
    done = airflow.test("my_jobs", {}, **access(api), DESTINATION__POSTGRES__CREDENTIALS=url)
    assert {state for _, state, _ in states(airflow, "my_jobs")} == {"success"}, done.stdout
    assert airflow.returned("load")[0]["jobs"] == 150
    assert_equal(in_postgres, api.account, "convertly_data")


@pytest.mark.slow
def test_the_dags_load_the_account_into_duckdb(airflow: Airflow, serve: Serve) -> None:
    """New and changed jobs arrive, windows one by one; the key of a connection is seen nowhere.

    The counts of the rows are returned, and the views are there when they are asked for. Nothing is
    left of the folders that the tasks worked in.
    """
    api = serve(DemoAPI(DemoAccount(150), key=KEY))
    file = airflow.home / "jobs.duckdb"
    connection = {"conn_type": "http", "host": api.url, "password": KEY}
    settings = {
        "AIRFLOW_CONN_CONVERTLY": json.dumps(connection),
        "DESTINATION__DUCKDB__CREDENTIALS": str(file),
    }

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(file)) as database:
            return database.execute(sql).fetchall()

    outputs = []
    for dag, dataset in (
        ("convertly_jobs", "convertly_data"),
        ("convertly_jobs", "convertly_data"),
        ("convertly_backfill", "history"),
    ):
        own = {"days_per_window": 2} if "back" in dag else {"models": True}
        parameters = {"dataset": dataset} | own
        done = airflow.test(dag, parameters, **settings)
        outputs += [done.stdout, done.stderr]
        assert {state for _, state, _ in states(airflow, dag)} == {"success"}, done.stdout
        assert_equal(ask, api.account, dataset)
        api.account.finish(api.account.unfinished()[0])
        api.account.create()
    first, second = airflow.returned("load_jobs")
    assert {*first} == {*second} == {*TABLES}
    assert (first["jobs"], second["jobs"]) == (150, 2)
    assert ask("SELECT count(*) FROM convertly_data.job_facts") == [(151,)]
    assert extras(airflow) == [first, second]
    windows = airflow.returned("load_one_by_one")
    assert len(windows) == 3
    assert sum(rows["jobs"] for rows in windows) == 152
    [compared] = airflow.returned("compare")
    assert compared["jobs"] == 152
    assert schemas(ask) == ["history"]
    ask("DELETE FROM convertly_data.jobs WHERE id = (SELECT min(id) FROM convertly_data.jobs)")
    done = airflow.test("convertly_verify", {}, **settings)
    outputs += [done.stdout, done.stderr]
    [verified] = airflow.returned("verify")
    assert (verified["listed"], verified["held"]) == (153, 153)
    assert verified["loaded"] >= 1
    assert verified["removed"] == 0
    assert_equal(ask, api.account, "convertly_data")
    assert not [path for path in (airflow.home / "tmp").rglob("*") if "convertly" in str(path)]
    assert_no_key(airflow, *outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("airflow", "folder", "message"),
    [("3.3.2", "{home}/", "Invalid API key."), ("2.11.2", "", "to an absolute path")],
    indirect=["airflow"],
)
def test_an_error_that_stays_fails_at_once(
    airflow: Airflow, serve: Serve, folder: str, message: str
) -> None:
    """A key (of a variable) that the API refuses, or a wrong setting, is not tried again."""
    api = serve()
    settings = {
        "AIRFLOW_VAR_CONVERTLY_API_KEY": KEY,
        "CONVERTLY_BASE_URL": api.url,
        "DESTINATION__DUCKDB__CREDENTIALS": f"{folder.format(home=airflow.home)}refused.duckdb",
    }
    done = airflow.test("convertly_jobs", {}, **settings)
    assert states(airflow, "convertly_jobs") == [("load_jobs", "failed", 1)]
    assert message in done.stdout + done.stderr
    assert_no_key(airflow, done.stdout, done.stderr)


def test_the_dags_load_by_the_functions_of_the_package() -> None:
    """Tasks call what the command line calls; the file itself has no load of its own."""
    tree = ast.parse(DAG.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {
        alias.name
        for node in nodes
        for alias in node.names
        if node.module and node.module.startswith("convertly_source.loading")
    }
    assert names >= {
        "load_account",
        "verify_account",
        "plan_windows",
        "load_window",
        "check",
        "configure",
        "Target",
    }
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {
        func.attr if isinstance(func, ast.Attribute) else func.id
        for func in calls
        if isinstance(func, ast.Attribute | ast.Name)
    }
    assert called >= {
        "load_account",
        "verify_account",
        "plan_windows",
        "load_window",
        "check",
        "configure",
    }
    assert not called & {"run", "extract", "pipeline"}


class Gate:
    """An API that is away at first, and lets requests wait while the gate is not open."""

    def __init__(self, api: DemoAPI) -> None:
        self.is_away, self.is_open = True, Event()
        self.is_open.set()
        api.fault = self._pass

    def _pass(self, _: dict[str, str]) -> Reply | None:
        if self.is_away:
            return Reply(503, {"error": "Storage is unavailable."})
        self.is_open.wait()
        return None


def most_at_once(airflow: Airflow, task: str) -> Any:
    """Count how many instances of a task were running at the same time, at most."""
    times = airflow.ask(f"SELECT start_date, end_date FROM task_instance WHERE task_id = '{task}'")
    return max(sum(begin <= start < end for begin, end in times) for start, _ in times)


def wait(airflow: Airflow, sql: str) -> None:
    """Wait until a statement in Airflow's database finds something."""
    deadline = time.monotonic() + 240
    while not airflow.ask(sql):
        assert time.monotonic() < deadline, airflow.ask(
            "SELECT dag_id, run_id, task_id, map_index, state, try_number FROM task_instance"
        )
        time.sleep(0.5)


def assert_followed(airflow: Airflow) -> None:
    """Check that each load that brought rows was followed by one run, which saw its counts."""
    loads = [rows for rows in airflow.returned("load_jobs") if rows["jobs"]]
    assert [rows["jobs"] for rows in loads] == [800, 800]
    assert extras(airflow) == loads
    followers = airflow.returned("build")
    assert [extra for seen in followers for extra in seen] == loads
    assert all(followers)


@pytest.mark.slow
def test_a_scheduler_runs_them(
    serve: Serve, servers: Any, in_postgres: Ask, tmp_path: Path
) -> None:
    """A scheduled run, a manual one and a backfill of Airflow, one at a time; windows at once.

    The scheduled one meets an API that is away, and is tried again. Windows load into PostgreSQL
    two at a time, as many as the pool lets through, and lose nothing. The DAG of the README that
    is scheduled on new rows runs after the two loads that brought some, and after no other.
    """
    url = servers(postgres)
    with closing(psycopg2.connect(url)) as server:
        server.autocommit = True
        server.cursor().execute("CREATE DATABASE airflow")
    database = url.replace("/postgres?", "/airflow?")
    airflow = Airflow.make("3.3.2", tmp_path / "home", database)
    add_dag(airflow, "my_models")
    api = serve(DemoAPI(DemoAccount(800), key=KEY))
    gate, file = Gate(api), tmp_path / "jobs.duckdb"
    connection = {"conn_type": "http", "host": api.url, "password": KEY}
    settings = {
        "AIRFLOW_CONN_CONVERTLY": json.dumps(connection),
        "CONVERTLY_POOL": "convertly",
        "DESTINATION__DUCKDB__CREDENTIALS": str(file),
        "DESTINATION__POSTGRES__CREDENTIALS": url,
        "RUNTIME__REQUEST_MAX_ATTEMPTS": "1",
        "SOURCES__CONVERTLY__PAGE_SIZE": "10",
    }
    running = "SELECT 1 FROM task_instance WHERE task_id = 'load_at_once' AND state = 'running'"
    with airflow.scheduler(**settings) as post:
        post("pools", name="convertly", slots=8)
        wait(airflow, AFTER_AN_HOUR)
        gate.is_away = False
        conf = {"destination": "postgres", "dataset": "history", "days_per_window": 8}
        post("dags/convertly_backfill/dagRuns", logical_date=None, conf=conf)
        wait(airflow, "SELECT 1 FROM task_instance WHERE task_id = 'plan' AND state = 'success'")
        gate.is_open.clear()
        wait(airflow, f"{running} GROUP BY task_id HAVING count(*) = 2")
        gate.is_open.set()
        post("dags/convertly_jobs/dagRuns", logical_date=None, conf={"dataset": "other"})
        dates = {"from_date": "2026-05-01T00:00:00Z", "to_date": "2026-05-01T01:00:00Z"}
        post("backfills", dag_id="convertly_jobs", **dates)
        ended = "SELECT 1 FROM dag_run WHERE state IN ('success', 'failed')"
        wait(airflow, f"{ended} AND dag_id <> 'my_models' HAVING count(*) = 5")
        wait(airflow, "SELECT 1 FROM asset_dag_run_queue HAVING count(*) = 0")
        wait(airflow, "SELECT 1 FROM dag_run HAVING bool_and(state IN ('success', 'failed'))")
    runs = airflow.ask(
        "SELECT dag_id, run_type, state FROM dag_run WHERE dag_id <> 'my_models' ORDER BY 1, 2"
    )
    backfills = [("convertly_jobs", "backfill", "success")] * 2
    ordinary = [("convertly_jobs", kind, "success") for kind in ("manual", "scheduled")]
    assert runs == [("convertly_backfill", "manual", "success"), *backfills, *ordinary]
    tries = airflow.ask(
        "SELECT run_type, try_number FROM task_instance JOIN dag_run USING (run_id)"
        " WHERE task_id = 'load_jobs' ORDER BY 1"
    )
    assert tries == [*[("backfill", 1)] * 2, ("manual", 1), ("scheduled", 2)]
    assert_followed(airflow)
    assert most_at_once(airflow, "load_jobs") == 1
    assert most_at_once(airflow, "load_at_once") == 2
    assert len(airflow.returned("load_at_once")) == 5
    assert airflow.returned("compare")[0]["jobs"] == 800
    assert_equal(in_postgres, api.account)
    assert schemas(in_postgres) == ["history"]
    for dataset in ("convertly_data", "other"):
        with duckdb.connect(str(file)) as database:
            assert_equal(lambda sql: database.execute(sql).fetchall(), api.account, dataset)
    rendered = airflow.ask(
        "SELECT CAST(rendered_fields AS text) FROM rendered_task_instance_fields"
    )
    assert_no_key(airflow, str(rendered))
