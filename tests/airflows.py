"""A real Airflow, in an environment and a home folder of its own."""

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent
DAG = TESTS.parent / "pipelines" / "airflow_dag.py"
VERSIONS = {"AIRFLOW_PYTHON": "3.3.2", "AIRFLOW_2_PYTHON": "2.11.2"}
Done = subprocess.CompletedProcess[str]


class Airflow(NamedTuple):
    """An Airflow that knows the DAGs of this project, and nothing else."""

    python: str
    home: Path

    @classmethod
    def make(cls, variable: str, home: Path) -> "Airflow":
        """Make a home for the Airflow whose Python a variable of the environment names."""
        python = os.environ.get(variable)
        if not python:
            missing = pytest.fail if "NEEDS_SERVERS" in os.environ else pytest.skip
            pins = f"tests/airflow-{VERSIONS[variable]}-pins.txt"
            missing(f"{variable} is not set: an environment with `pip install -r {pins} .`")
        airflow = cls(str(python), home)
        (home / "dags").mkdir(parents=True)
        shutil.copy(DAG, home / "dags")
        assert airflow.run("-m", "airflow", "db", "migrate").returncode == 0
        return airflow

    def copy(self, home: Path) -> "Airflow":
        """Make another home, as this one is."""
        shutil.copytree(self.home, home)
        return self._replace(home=home)

    def environment(self, **settings: str) -> dict[str, str]:
        """Give the environment that it runs in: not that of the tests."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        core = {"LOAD_EXAMPLES": "False", "DAGS_ARE_PAUSED_AT_CREATION": "False"}
        return {
            **kept,
            "HOME": str(self.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            **{f"AIRFLOW__CORE__{name}": value for name, value in core.items()},
            **settings,
        }

    def run(self, *arguments: str, **settings: str) -> Done:
        """Run its Python to the end."""
        return subprocess.run(
            [self.python, *arguments],
            env=self.environment(**settings),
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    def test(self, dag: str, *runs: dict[str, Any], **settings: str) -> Done:
        """Run a DAG, once for each set of parameters, without a scheduler."""
        parameters = map(json.dumps, runs)
        return self.run(str(TESTS / "airflow_run.py"), dag, *parameters, **settings)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database of Airflow."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=60)) as database:
            return database.execute(sql).fetchall()

    def returned(self, task: str) -> list[Any]:
        """List what a task has returned, in the order of runs and windows."""
        sql = (
            "SELECT value FROM xcom JOIN dag_run ON dag_run.id = dag_run_id"
            f" WHERE key = 'return_value' AND task_id = '{task}' ORDER BY dag_run.id, map_index"
        )
        return [json.loads(value) for (value,) in self.ask(sql)]
