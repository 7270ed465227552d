"""A real Airflow, in an environment and a home folder of its own."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from helpers.servers import find_python, free_port

AIRFLOW_RUN = Path(__file__).with_name("airflow_run.py")
DAG = Path(__file__).resolve().parents[2] / "pipelines" / "airflow_dag.py"
PYTHONS = {"3.3.2": "AIRFLOW_PYTHON", "2.11.2": "AIRFLOW_2_PYTHON"}
UNTIL_IT_IS_UP = HTTPAdapter(max_retries=Retry(120, backoff_factor=0.1, backoff_max=1))
Post = Callable[..., None]
Done = subprocess.CompletedProcess[str]


class Airflow(NamedTuple):
    """An Airflow that knows the DAGs of this project, and nothing else."""

    version: str
    python: str
    home: Path
    database: str = ""  # a PostgreSQL, else an SQLite file at home

    @classmethod
    def make(cls, version: str, home: Path, database: str = "") -> "Airflow":
        """Make a home with the DAG file, for the Python that the environment names."""
        python = find_python(PYTHONS[version], f"airflow-{version}-pins.txt, and this package")
        airflow = cls(version, python, home, database)
        (home / "dags").mkdir(parents=True)
        (home / "tmp").mkdir()
        shutil.copy(DAG, home / "dags")
        airflow.command("db", "migrate")
        if version.startswith("2"):  # a task can't use an alias of a DAG that was never stored
            airflow.command("dags", "reserialize")
        return airflow

    def copy(self, home: Path) -> "Airflow":
        """Return another one at `home`, which is as this one is now."""
        shutil.copytree(self.home, home)
        (home / "airflow.cfg").unlink()  # it names the folder; Airflow writes another
        return self._replace(home=home)

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        """Return the environment that it runs in: that of the tests is not for it."""
        driver = {"": "psycopg2", "_ASYNC": "asyncpg"} if self.database else {}
        databases = {
            f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN{name}": self.database.replace(":", f"+{kind}:", 1)
            for name, kind in driver.items()
        }
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **databases,
            **settings,
        }

    def run(self, *arguments: str, **settings: str) -> Done:
        """Run its Python to the end."""
        return subprocess.run(
            [self.python, *arguments],
            env=self.environment(settings),
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *arguments: str, **settings: str) -> Done:
        """Run a command of Airflow, which must succeed."""
        done = self.run("-m", "airflow", *arguments, **settings)
        assert done.returncode == 0, done.stderr
        return done

    def test(self, dag: str, parameters: dict[str, Any], **settings: str) -> Done:
        """Run a DAG without a scheduler, by `dag.test()`."""
        # There, at DEBUG, Airflow 3.3.2 prints the very secrets that it is to mask.
        settings["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "INFO"
        return self.run(str(AIRFLOW_RUN), dag, json.dumps(parameters), **settings)

    @contextmanager
    def scheduler(self, **settings: str) -> Iterator[Post]:
        """Run a scheduler, and what it needs, on 127.0.0.1 only; yield a way to post to its API."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        settings |= {
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        }
        commands = (
            ("api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            ("dag-processor",),
            ("scheduler", "--skip-serve-logs"),
        )
        with ExitStack() as stack:
            for arguments in commands:
                log = stack.enter_context((self.home / f"{arguments[0]}.log").open("w"))
                process = subprocess.Popen(
                    [self.python, "-m", "airflow", *arguments],
                    env=self.environment(settings),
                    cwd=self.home,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                stack.callback(process.wait)
                # With its workers, and not by SIGTERM: a scheduler may wait for them for ever.
                stack.callback(os.killpg, process.pid, signal.SIGKILL)
            session = stack.enter_context(Session())
            session.mount(url, UNTIL_IT_IS_UP)

            def post(path: str, **body: Any) -> None:
                response = session.post(f"{url}/api/v2/{path}", json=body)
                assert response.ok, response.text

            yield post

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the database of Airflow."""
        if not self.database:
            with closing(sqlite3.connect(self.home / "airflow.db")) as file:
                return file.execute(sql).fetchall()
        with closing(psycopg2.connect(self.database)) as server, server.cursor() as cursor:
            cursor.execute(sql)
            server.commit()
            return cursor.fetchall()

    def returned(self, task: str) -> list[Any]:
        """Return what a task has returned, in the order of runs and windows."""
        sql = (
            "SELECT value FROM xcom WHERE key = 'return_value'"
            f" AND task_id = '{task}' ORDER BY dag_run_id, map_index"
        )
        values = [value for (value,) in self.ask(sql)]
        return [json.loads(value) if isinstance(value, (str, bytes)) else value for value in values]
