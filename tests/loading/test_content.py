"""Whatever the jobs hold, six destinations load all of them, run after run."""

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.libs.deltalake import get_delta_tables
from dlt.common.libs.pyiceberg import get_iceberg_tables
from dlt.common.normalizers.naming.snake_case import NamingConvention
from helpers.content import CASES, REASONS, ContentAPI, dlt_log
from helpers.script import load_from, query
from helpers.warehouse import Place, Warehouse

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.source import MAX_INSERTED_ROWS
from convertly_source.tables.schema import TABLES

pytestmark = pytest.mark.slow
Serve = Callable[[DemoAPI], DemoAPI]
Rows = list[dict[str, Any]]
PLACES = ["duckdb", "postgres", "sqlalchemy on mariadb", "sqlalchemy", "delta", "iceberg"]


class Reader:
    """Reads the tables of a destination by dlt's own means."""

    def __init__(self, place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in place.settings.items():
            monkeypatch.setenv(name, value)
        _, dataset, _, destination, *lake = place.arguments
        self._lake = lake[-1] if lake else None
        self.pipeline = dlt.pipeline(
            "convertly", str(folder / "reader"), destination=destination, dataset_name=dataset
        )
        self.pipeline.sync_destination()
        self.schema = self.pipeline.schemas["convertly"]

    def rows(self, table: str) -> Rows:
        """Return the rows of a table; JSON, times and booleans as Python has them."""
        types = {
            name: column.get("data_type")
            for name, column in self.schema.get_table_columns(table).items()
        }
        return [
            {name: _python_value(value, types[name]) for name, value in row.items()}
            for row in self._raw_rows(table)
        ]

    def _raw_rows(self, table: str) -> Rows:
        if self._lake == "delta":
            tables = get_delta_tables(self.pipeline, table, schema_name="convertly")
            return list(tables[table].to_pyarrow_table().to_pylist())
        if self._lake == "iceberg":
            scans = get_iceberg_tables(self.pipeline, table, schema_name="convertly")
            return list(scans[table].scan().to_arrow().to_pylist())
        with self.pipeline.sql_client() as client:
            name = client.make_qualified_table_name(table)
            columns = list(self.schema.get_table_columns(table))
            selected = ", ".join(map(client.escape_column_name, columns))
            found = client.execute_sql(f"SELECT {selected} FROM {name}") or []
            return [dict(zip(columns, row, strict=True)) for row in found]


def _python_value(value: Any, data_type: str | None) -> Any:
    if value is None:
        return None
    if data_type == "json" and isinstance(value, str):
        return json.loads(value)
    if data_type == "bool":
        return bool(value)
    if data_type == "timestamp":
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return value


def assert_holds(row: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check columns of a row; numbers are compared as numbers."""
    assert {name: row.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("place", "max_inserted_rows"),
    [*((place, MAX_INSERTED_ROWS) for place in PLACES), ("duckdb", 0)],
    indirect=["place"],
)
def test_odd_content_loads_whole_in_run_after_run(
    serve: Serve,
    place: Place,
    max_inserted_rows: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each case is stored as documented, among all the good jobs; tables and columns are few."""
    monkeypatch.setattr("convertly_source.source.MAX_INSERTED_ROWS", max_inserted_rows)
    api = ContentAPI()
    serve(api)
    for _ in range(3):
        done = load_from(api, *place.arguments, **place.settings)
        assert done.returncode == 0, done.stderr
        api.account.finish(api.account.create())
        requests = len(api.requests)
    done = load_from(api, *place.arguments, **place.settings)
    assert (done.returncode, len(api.requests) - requests) == (0, 3), done.stderr
    reader = Reader(place, tmp_path, monkeypatch)

    jobs = {row["id"]: row for row in reader.rows("jobs")}
    assert set(jobs) == {job["id"] for job in api.good_jobs} | set(api.case_ids.values())
    results: dict[str, Rows] = {}
    for row in sorted(reader.rows("jobs__results"), key=lambda row: row["_dlt_list_idx"]):
        results.setdefault(row["job_id"], []).append(row)
    for name, case in CASES.items():
        assert_holds(jobs[api.case_ids[name]], case.job)
        found = results.get(api.case_ids[name], [])
        assert len(found) == len(case.results)
        for row, expected in zip(found, case.results, strict=True):
            assert_holds(row, expected)
    for job in api.good_jobs:
        fields = ("status", "progress", "completed_files", "error_message")
        assert_holds(jobs[job["id"]], {name: job[name] for name in fields})
    rejected = reader.rows("rejected_jobs")
    assert sorted(row["reason"] for row in rejected) == sorted(REASONS)
    assert "\0" not in json.dumps([row["raw"] for row in rejected], ensure_ascii=False)

    assert set(reader.schema.data_table_names()) <= set(TABLES)
    for table, (_, documented) in TABLES.items():
        columns = reader.schema.tables.get(table, {"columns": {}})["columns"]
        other = [name for name in columns if name not in documented and "_dlt_" not in name]
        assert len([name for name in other if name != "extra_fields"]) <= 100


@pytest.mark.slow
def test_extra_fields_are_reported_once_per_run(warehouse: Warehouse, serve: Serve) -> None:
    """A run warns of the first field without a column of its own, and of no other."""
    account = DemoAccount(250)
    for job in account.jobs:
        job |= {"fooBar": 1, "foo_bar": "\x1b[31m"}
    api = serve(DemoAPI(account))
    with dlt_log() as lines:
        load_in_chunks(warehouse, api)
    [line] = [line for line in lines if "extra_fields" in line]
    assert "'foo_bar' in jobs" in line
    assert line.isprintable()
    assert warehouse.query("SELECT count(extra_fields) FROM jobs") == [(250,)]


def load_in_chunks(warehouse: Warehouse, api: DemoAPI, **settings: Any) -> None:
    """Load page by page, an extract for each."""
    source = convertly_source(DEMO_KEY, api.url, **settings)
    jobs = source.resources["jobs"].add_limit(1)
    jobs.custom_metrics["is_complete"] = False
    while not jobs.custom_metrics["is_complete"]:
        warehouse.pipeline.run(source)


def fail_to_name(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Let dlt fail to make a column name for a field."""
    usual = NamingConvention.normalize_identifier

    def failing(naming: NamingConvention, key: str) -> str:
        if key == field:
            raise KeyError(key)
        return usual(naming, key)

    monkeypatch.setattr(NamingConvention, "normalize_identifier", failing)


def test_rejected_rows_do_not_wait_for_the_end(
    warehouse: Warehouse, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the same load as the page that has them, and there once."""
    fail_to_name(monkeypatch, "boom")
    account = DemoAccount(550)
    account.jobs[0]["boom"] = 1
    source = convertly_source(DEMO_KEY, serve(DemoAPI(account)).url)
    source.resources["jobs"].add_limit(1)
    for _ in range(2):
        warehouse.pipeline.run(source)
        assert len(warehouse.rows("rejected_jobs", "fingerprint")) == 1
    assert len(warehouse.rows("jobs", "id")) < 200


@pytest.mark.slow
@pytest.mark.parametrize("window", [{}, {"end_date": "2027-01-01"}])
def test_a_job_that_fails_to_be_mapped_stops_no_load(
    warehouse: Warehouse, serve: Serve, monkeypatch: pytest.MonkeyPatch, window: dict[str, str]
) -> None:
    """It is recorded, also when the extract ends with the page that has it; all others load."""
    fail_to_name(monkeypatch, "boom")
    account = DemoAccount(250)
    boom = [account.jobs[number] for number in (0, 120, 249)]
    for job in boom:
        job["boom"] = 1
    api = serve(DemoAPI(account))
    load_in_chunks(warehouse, api, **window)
    sql = "SELECT reason, raw->>'id' FROM rejected_jobs ORDER BY raw->>'created_at'"
    assert warehouse.query(sql) == [("could not be mapped (KeyError)", job["id"]) for job in boom]
    good = sorted((job["id"],) for job in account.jobs if job not in boom)
    assert warehouse.rows("jobs", "id") == good
    warehouse.load(api)
    assert len(warehouse.rows("rejected_jobs", "reason")) == 3


@pytest.mark.slow
def test_a_first_load_of_rejected_jobs_alone(serve: Serve, tmp_path: Path) -> None:
    """When no job can be stored, the load makes its tables all the same, run after run."""
    account = DemoAccount(5)
    for job in account.jobs:
        del job["id"]
    api = serve(DemoAPI(account))
    for rejected in (5, 0):
        done = load_from(api, "--destination", "duckdb", DLT_DATA_DIR=str(tmp_path / "dlt"))
        assert done.returncode == 0, done.stderr
        assert f"0 results; {rejected} rejected" in done.stdout
    assert query("SELECT count(*) FROM convertly_data.jobs__results") == [(0,)]


@pytest.mark.slow
def test_the_limit_of_columns_holds_over_runs_and_folders(serve: Serve, tmp_path: Path) -> None:
    """A run in a fresh folder counts the columns that the destination has."""
    account = DemoAccount(3)
    api = serve(DemoAPI(account))
    for number in range(3):
        account.create(**{f"field{number}_{n}": str(n) for n in range(60)})  # type: ignore[arg-type]
        warehouse = Warehouse(tmp_path, str(tmp_path / f"folder{number}"))
        warehouse.load(api)
    columns = warehouse.query(
        "SELECT count(*) FROM duckdb_columns()"
        " WHERE schema_name = 'data' AND column_name LIKE 'field%'"
    )
    assert columns == [(100,)]
    extra = warehouse.query("SELECT len(json_keys(extra_fields)) FROM jobs ORDER BY created_at")
    assert extra == [(None,)] * 4 + [(20,), (60,)]
