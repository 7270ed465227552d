"""What the tests share: an API over HTTP on 127.0.0.1, and a warehouse in a DuckDB file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import duckdb_extensions
import pytest
from servers import mariadb, postgres, s3

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test to a folder of its own, without this machine's settings and long waits."""
    for name in ("CONVERTLY_API_KEY", "CONVERTLY_BASE_URL", "SOURCES__CONVERTLY__API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0.001")
    for module in ("client", "pace"):
        monkeypatch.setattr(f"convertly_source.{module}.MINUTE", 0.05)
    monkeypatch.setenv("LOAD__TRUNCATE_STAGING_DATASET", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[..., DemoAPI]]:
    """Serve an account, or an API made by the test, for as long as the test runs."""
    with ExitStack() as stack:

        def start(what: DemoAccount | DemoAPI | None = None) -> DemoAPI:
            api = what if isinstance(what, DemoAPI) else DemoAPI(what or DemoAccount(250))
            return stack.enter_context(api.serve())

        yield start


class Warehouse:
    """A pipeline into a DuckDB file, and the rows that are there."""

    def __init__(self, folder: Path, pipelines_dir: str | None = None) -> None:
        self.path = folder / "warehouse.duckdb"
        self.pipeline = dlt.pipeline(
            "test",
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


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Make an empty warehouse."""
    return Warehouse(tmp_path)


class Place(NamedTuple):
    """Where to load to: arguments of the script, and settings by environment."""

    arguments: list[str]
    settings: dict[str, str]


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[Any], Any]]:
    """Start servers when they are asked for, and end them with the tests."""
    with ExitStack() as stack:
        started: dict[Any, Any] = {}

        def start(server: Any) -> Any:
            if server not in started:
                started[server] = stack.enter_context(server())
            return started[server]

        yield start


@pytest.fixture
def place(request: pytest.FixtureRequest, servers: Any, tmp_path: Path) -> Place:
    """Make an empty destination of the kind that is asked for."""
    dataset = f"data_{abs(hash(request.node.name)) % 10**9}"
    kind, _, where = request.param.partition(" on ")
    arguments = ["--dataset", dataset, "--destination", kind]
    if kind in ("delta", "iceberg"):
        settings = {"DESTINATION__FILESYSTEM__BUCKET_URL": f"file://{tmp_path}/lake"}
        settings = servers(s3) if where else settings
        return Place([*arguments[:3], "filesystem", "--table-format", kind], settings)
    urls: dict[str, Callable[[], str]] = {
        "postgres": lambda: servers(postgres),
        "sqlalchemy": lambda: servers(mariadb) if where else f"sqlite:///{tmp_path}/jobs.db",
        "duckdb": lambda: f"{tmp_path}/jobs.duckdb",
    }
    if kind == "ducklake":
        extensions: Any = duckdb_extensions  # instead of DuckDB's download
        extensions.import_extension("ducklake")
        credentials = "DESTINATION__DUCKLAKE__CREDENTIALS__"
        settings = {
            "CATALOG": f"duckdb:///{tmp_path}/catalog.duckdb",
            "STORAGE__BUCKET_URL": f"{tmp_path}/lake",
        }
        return Place(arguments, {credentials + name: value for name, value in settings.items()})
    return Place(arguments, {f"DESTINATION__{kind.upper()}__CREDENTIALS": urls[kind]()})
