"""Where tests load to."""

from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAPI
from convertly_source.loading import LoadResult, Target, load_account


class Warehouse:
    """A pipeline into a DuckDB file, and the rows that are there."""

    def __init__(self, folder: Path, pipelines_dir: str | None = None) -> None:
        self.path = folder / "warehouse.duckdb"
        self.pipeline = dlt.pipeline(
            "convertly",
            pipelines_dir=pipelines_dir or str(folder / "pipelines"),
            destination=dlt.destinations.duckdb(str(self.path)),
            dataset_name="data",
        )

    def load(self, api: DemoAPI, **settings: Any) -> int:
        """Run once; return how many requests it took."""
        before = len(api.requests)
        self.pipeline.run(convertly_source(DEMO_KEY, api.url, **settings))
        return len(api.requests) - before

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask DuckDB."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'; USE data")
            return connection.execute(sql).fetchall()

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Select columns of a table, sorted; none when the table is not there."""
        names = self.query(f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{table}'")
        return sorted(self.query(f"SELECT {', '.join(columns)} FROM {table}")) if names else []


def load_into(
    target: Target, api: DemoAPI, settings: dict[str, Any] | None = None, **options: Any
) -> LoadResult:
    """Load the account of `api`; `settings` are those of the source."""
    given = {"api_key": DEMO_KEY, "base_url": api.url} | (settings or {})
    return load_account(target, convertly_source(**given), **options)


class Place(NamedTuple):
    """Where to load to: arguments of the script, and settings by environment."""

    arguments: list[str]
    settings: dict[str, str]
