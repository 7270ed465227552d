"""What the tests share: an API over HTTP on 127.0.0.1, and a warehouse in a DuckDB file."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import duckdb_extensions
import psycopg2
import pytest
from helpers.history import Ask
from helpers.lists import RESTLESS
from helpers.script import restart_dlt
from helpers.servers import bigquery, mariadb, postgres, s3
from helpers.warehouse import Place, Warehouse
from hypothesis import HealthCheck, settings

from convertly_source.demo import DemoAccount, DemoAPI

gc.set_threshold(100_000)  # as the command line
# No example fails because a machine is slow or busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure the coverage of the quick tests, and of slow ones that add to it."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("covers"):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test to a folder of its own, without this machine's settings and long waits."""
    keys = ("CONVERTLY_API_KEY", "SOURCES__CONVERTLY__API_KEY", "GOOGLE_APPLICATION_CREDENTIALS")
    for name in (*keys, "CONVERTLY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # Google's client asks the network where it runs
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0.001")
    monkeypatch.setattr("convertly_source.api.http.MINUTE", 0.05)
    monkeypatch.setenv("LOAD__TRUNCATE_STAGING_DATASET", "true")
    monkeypatch.chdir(tmp_path)
    restart_dlt()  # what a load has set is for its process
    RESTLESS.seed(0)  # else a test would depend on those before it


@pytest.fixture
def serve() -> Iterator[Callable[..., DemoAPI]]:
    """Serve an account, or an API made by the test, for as long as the test runs."""
    with ExitStack() as stack:

        def start(what: DemoAccount | DemoAPI | None = None) -> DemoAPI:
            api = what if isinstance(what, DemoAPI) else DemoAPI(what or DemoAccount(250))
            return stack.enter_context(api.serve())

        yield start


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Make an empty warehouse."""
    return Warehouse(tmp_path)


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
    if kind == "bigquery":
        return Place(arguments, servers(bigquery))
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


@pytest.fixture
def in_postgres(servers: Any, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Give an empty PostgreSQL to load to, and a way to ask it."""
    url = servers(postgres)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            connection.commit()
            return cursor.fetchall() if cursor.description else []

    ask("DROP SCHEMA IF EXISTS history CASCADE")
    return ask
