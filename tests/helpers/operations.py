"""Loads as processes of their own, at the same time or killed, and what they leave behind."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt

from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.loading import Target
from helpers.model import summary
from helpers.script import Done, access, run, started
from helpers.warehouse import Place

if TYPE_CHECKING:
    import subprocess

CHUNK_PAGES = 3

Loaded = dict[str, tuple[str, int]]


class Loader:
    """Starts loads of an account into one dataset, on as many machines as it is told.

    A machine is a data folder of its own: nothing but the database is shared.
    """

    def __init__(self, api: DemoAPI, place: Place, folder: Path) -> None:
        self.api = api
        self._place = place
        self._folder = folder

    @property
    def away_at_most(self) -> int:
        """The number of rows that a killed load may leave out until the next one.

        dlt's merge deletes and inserts in one transaction, except in MariaDB: there it creates
        tables in between, which commits. So the rows of one chunk may be away.
        """
        is_atomic = "sqlalchemy" not in self._place.arguments
        return 0 if is_atomic else CHUNK_PAGES * 100

    def start(self, *arguments: str, machine: str = "one") -> "subprocess.Popen[str]":
        """Start a load in small chunks."""
        # SQLAlchemy warns of dlt's merge.
        environment = {**self._environment(machine), "PYTHONWARNINGS": "ignore"}
        return started("load", *self._arguments, *arguments, **environment)

    def run(self, *arguments: str, machine: str = "one") -> tuple[int, str, list[str]]:
        """Load to the end; return the exit code, the output, and the lines for a person."""
        return end(self.start(*arguments, machine=machine))

    def load(self, *arguments: str, machine: str = "one") -> Done:
        """Load to the end in this process, where nothing else is under way."""
        return run("load", *self._arguments, *arguments, **self._environment(machine))

    @property
    def _arguments(self) -> list[str]:
        return [*self._place.arguments, "--chunk-pages", str(CHUNK_PAGES)]

    def _environment(self, machine: str) -> dict[str, str]:
        folder = {"DLT_DATA_DIR": str(self._folder / machine)}
        return access(self.api) | folder | self._place.settings

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in which `{table}` is a table of the dataset."""
        with self._pipeline().sql_client() as client:
            tables = {
                name: client.make_qualified_table_name(name)
                for name in ("jobs", "jobs__results", "removed_jobs", "my_view")
            }
            rows = client.execute_sql(sql.format(**tables))
            return [tuple(row) for row in rows or []]

    def drop_staging_tables(self) -> None:
        """Leave the staging dataset as it is when it has just been created."""
        with self._pipeline().sql_client() as client, client.with_staging_dataset():
            for name in ("jobs", "jobs__results", "removed_jobs", "runs", "_dlt_version"):
                table = client.make_qualified_table_name(name)
                client.execute_sql(f"DROP TABLE IF EXISTS {table}")

    def _pipeline(self) -> dlt.Pipeline:
        _, dataset, _, destination, *_ = self._place.arguments
        return Target(destination, dataset).pipeline(self._folder / "reader")

    def loaded(self) -> Loaded:
        """Return each job that is loaded, with its status and the number of its results."""
        results = dict(self.select("SELECT job_id, count(*) FROM {jobs__results} GROUP BY 1"))
        jobs = self.select("SELECT id, status FROM {jobs}")
        assert not [key for key, count in Counter(key for key, _ in jobs).items() if count > 1]
        assert set(results) <= {key for key, _ in jobs}
        return {key: (status, results.get(key, 0)) for key, status in jobs}

    def assert_equal(self) -> None:
        """Compare the warehouse with the account; what is no longer listed is in removed_jobs."""
        loaded, listed = self.loaded(), expected(self.api.account)
        removed = {key for (key,) in self.select("SELECT id FROM {removed_jobs}")}
        assert {key: value for key, value in loaded.items() if key in listed} == listed
        assert set(loaded) - set(listed) <= removed
        assert not removed & set(listed)


def end(process: "subprocess.Popen[str]") -> tuple[int, str, list[str]]:
    """Wait for a load; return the exit code, the output, and the lines for a person."""
    output, errors = process.communicate()
    lines = [line for line in errors.splitlines() if not line.endswith(" jobs read")]
    return process.returncode, output, lines


def expected(account: DemoAccount) -> Loaded:
    """Return what must be loaded of an account."""
    return {job["id"]: (job["status"], len(summary(job)[-1])) for job in account.jobs}


def live(account: DemoAccount, chance: Any) -> None:
    """Let some jobs be created, end and be cancelled."""
    for _ in range(5):
        account.create()
    for job in chance.sample(account.unfinished(), 3):
        account.finish(job)
    account.cancel(account.unfinished()[0])
