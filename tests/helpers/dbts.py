"""The dbt project as `init` copies it, and a real dbt in an environment of its own.

No helper may have a name that begins with `dbt_`: dbt imports such modules as its plugins.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2.extensions

from convertly_source.files import copy_all
from helpers.servers import PROJECT, find_python
from helpers.warehouse import Place

RUN_DBT = Path(__file__).with_name("run_dbt.py")
STRICT = ("--warn-error-options", '{"error": ["Deprecations"]}')  # tests may warn, dbt may not


class DbtProject(NamedTuple):
    """A copy of the project, and the environment that dbt runs in, which is not that of tests."""

    python: str
    folder: Path
    settings: dict[str, str]
    dataset: str

    @classmethod
    def make(
        cls, folder: Path, settings: dict[str, str], dataset: str = "convertly_data"
    ) -> "DbtProject":
        """Copy the project, for the Python that the environment names."""
        python = find_python("DBT_PYTHON", "dbt-1.11-pins.txt")
        copy_all(folder)
        return cls(python, folder / "dbt", settings, dataset)

    @classmethod
    def of(cls, place: Place, folder: Path) -> "DbtProject":
        """Copy the project for the tables of a place."""
        _, dataset, _, target = place.arguments
        settings = place.settings
        if target == "postgres":
            [url] = settings.values()
            parts = psycopg2.extensions.parse_dsn(url)
            names = {"host": "HOST", "user": "USER", "password": "PASSWORD", "dbname": "DATABASE"}
            settings = {f"PG{name}": parts[key] for key, name in names.items()}
        elif target == "bigquery":
            credentials = folder / "google.json"
            credentials.write_text(settings["DESTINATION__BIGQUERY__CREDENTIALS"])
            names = {"GOOGLE_APPLICATION_CREDENTIALS": str(credentials)}
            settings = settings | names | {"GOOGLE_CLOUD_PROJECT": PROJECT}
        return cls.make(folder, {"DBT_TARGET": target, **settings}, dataset)

    def run(self, *commands: str) -> list[bool]:
        """Run commands of dbt in one process; return whether each has succeeded."""
        variables = ("--vars", json.dumps({"convertly_dataset": self.dataset}))
        given = [[*STRICT, *command.split(), *variables] for command in commands]
        done = subprocess.run(
            [self.python, str(RUN_DBT), json.dumps(given)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        print(done.stdout)  # pytest shows it when the test fails
        succeeded: list[bool] = json.loads(done.stdout.splitlines()[-1])
        return succeeded

    def read(self, artifact: str) -> Any:
        """Return what dbt has written about the project or the last command."""
        return json.loads((self.folder / "target" / f"{artifact}.json").read_text())

    def statuses(self) -> dict[str, str]:
        """Return how each model, test or source of the last command came out, by its name."""
        results = self.read("run_results")["results"]
        return {result["unique_id"].split(".")[2]: result["status"] for result in results}
