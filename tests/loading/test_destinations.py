"""Real destinations: a living account is loaded several times, and compared with what is there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.libs.deltalake import get_delta_tables
from dlt.common.libs.pyiceberg import get_iceberg_tables
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.model import summary
from helpers.script import access, load_from, run
from helpers.servers import BIGQUERY, PROJECT
from helpers.warehouse import Place

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import explained
from convertly_source.loading import Target
from convertly_source.tables.records import fingerprint

Serve = Callable[..., DemoAPI]
Tables = dict[str, list[dict[str, Any]]]
COLUMNS = {
    "jobs": ("id", "status", "progress", "completed_files", "error_message"),
    "jobs__results": ("job_id", "_dlt_list_idx", "filename", "value"),
    "rejected_jobs": ("fingerprint", "raw"),
    "removed_jobs": ("id",),
    "runs": ("kind", "listed", "held"),
}


def slow(*places: str) -> list[Any]:
    """Return places that need a server, or take seconds."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in places]


SLOW_DATABASES = [*slow("ducklake", "postgres", "sqlalchemy", "sqlalchemy on mariadb"), BIGQUERY]
SLOW_LAKES = slow("delta", "iceberg", "delta on s3", "iceberg on s3")


def read(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Read all tables, by dlt's own means."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    _, dataset, _, destination, *lake = place.arguments
    pipeline = dlt.pipeline(
        "convertly",
        pipelines_dir=str(tmp_path / "reader"),
        destination=destination,
        dataset_name=dataset,
    )
    pipeline.sync_destination()
    names = [name for name in pipeline.schemas["convertly"].data_table_names() if name in COLUMNS]
    if "delta" in lake:
        tables = get_delta_tables(pipeline, *names, schema_name="convertly")
        return {name: table.to_pyarrow_table().to_pylist() for name, table in tables.items()}
    if "iceberg" in lake:
        scans = get_iceberg_tables(pipeline, *names, schema_name="convertly")
        return {name: table.scan().to_arrow().to_pylist() for name, table in scans.items()}
    rows: Tables = {}
    with pipeline.sql_client() as client:
        for name in names:
            table = client.make_qualified_table_name(name)
            found = client.execute_sql(f"SELECT {', '.join(COLUMNS[name])} FROM {table}")
            rows[name] = [dict(zip(COLUMNS[name], row, strict=True)) for row in found or []]
    return rows


def assert_equal(tables: Tables, account: DemoAccount, gone: list[str]) -> None:
    """Compare jobs, results, rejected and removed rows with the account."""
    results: dict[str, list[Any]] = {}
    for item in sorted(tables["jobs__results"], key=lambda row: row["_dlt_list_idx"]):
        results.setdefault(item["job_id"], []).append((item["filename"], item["value"]))
    loaded = [
        (*(row[name] for name in COLUMNS["jobs"]), results.get(row["id"], []))
        for row in tables["jobs"]
        if row["id"] not in gone
    ]
    expected = []
    for job in account.jobs:
        if job["id"]:
            *fields, _, items = summary(job)
            expected.append((job["id"], *fields, items))
    assert sorted(loaded) == sorted(expected)
    assert len(tables["jobs"]) == len(expected) + len(gone)
    assert results.keys() <= {row["id"] for row in tables["jobs"]}
    rejected = sorted(row["fingerprint"] for row in tables["rejected_jobs"])
    assert rejected == sorted(fingerprint(job) for job in account.jobs if not job["id"])
    raw = tables["rejected_jobs"][0]["raw"]
    assert (json.loads(raw) if isinstance(raw, str) else raw)["id"] is None
    assert sorted(row["id"] for row in tables["removed_jobs"]) == sorted(gone)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "place",
    ["duckdb", *SLOW_DATABASES, *SLOW_LAKES],
    indirect=True,
)
def test_a_destination_equals_the_account(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first load, changes, nothing new and a window: after each the tables are the account.

    The changes are loaded from another working folder: the next load, which has nothing to do,
    learns of them by the destination alone.
    """
    api = serve(DemoAccount(120))
    account, gone = api.account, list[str]()
    other = {"DLT_DATA_DIR": str(tmp_path / "other")}
    account.create()["id"] = None

    def load(count: int, *arguments: str, **environment: str) -> Tables:
        done = load_from(api, *place.arguments, *arguments, **place.settings, **environment)
        assert done.returncode == 0, done.stderr
        assert "WARN" not in done.stderr
        assert done.stdout.startswith(f"Loaded {count} jobs ")
        tables = read(place, tmp_path, monkeypatch)
        assert_equal(tables, account, gone)
        return tables

    load(120, "--chunk-pages", "1")
    first, second, third, *_ = account.unfinished()
    account.progress(first)
    account.finish(second)
    gone.append(third["id"])
    account.cancel(third)
    account.create()["id"] = None
    account.finish(account.create(error_message="late"))
    load(3, "--chunk-pages", "1", **other)
    tables = load(0)
    assert [row["kind"] for row in tables["runs"]] == ["load"] * 3
    assert all(row["listed"] == row["held"] for row in tables["runs"])
    # A window reads its jobs again: what is there already is not doubled.
    load(120, "--end-date", "2027-01-01")


# DuckDB, PostgreSQL and MariaDB are verified and refreshed by tests of their own.
@pytest.mark.no_cover
@pytest.mark.parametrize("place", [*slow("ducklake", "sqlalchemy"), BIGQUERY], indirect=True)
def test_a_database_is_verified_and_refreshed(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is gone after its end is removed by `verify`, its rows by a full refresh."""
    api = serve(DemoAccount(60))
    account = api.account
    account.create()["id"] = None

    def do(*arguments: str) -> Tables:
        done = run(*arguments, *place.arguments, **access(api), **place.settings)
        assert done.returncode == 0, done.stderr
        assert "WARN" not in done.stderr
        return read(place, tmp_path, monkeypatch)

    assert_equal(do("load"), account, [])
    gone = next(job for job in account.jobs if job["status"] == "completed" and summary(job)[-1])
    account.cancel(gone)
    assert_equal(do("verify"), account, [gone["id"]])
    assert_equal(do("load", "--full-refresh"), account, [])


@pytest.mark.parametrize("place", [BIGQUERY], indirect=True)
def test_bigquery_clusters_the_jobs(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On BigQuery, queries of a range of `created_at` read a part of the table `jobs`."""
    _, dataset, *_ = place.arguments
    load_from(serve(DemoAccount(5)), *place.arguments, **place.settings)
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    with Target("bigquery", dataset).pipeline(tmp_path).sql_client() as client:
        jobs = client.native_connection.list_jobs()
        queries = [job.query for job in jobs if job.job_type == "query"]
    made = [table for query in queries for table in query.split("CREATE TABLE ")]
    clustered = {table.split()[0] for table in made if "CLUSTER BY `created_at`, `id`" in table}
    assert clustered == {f"`{PROJECT}`.`{name}`.`jobs`" for name in (dataset, f"{dataset}_staging")}


def test_plain_files_are_refused(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files can't be merged into: the source refuses them, with the remedy."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", f"file://{tmp_path}/lake")
    api = serve(DemoAccount(5))
    pipeline = dlt.pipeline("plain", str(tmp_path / "p"), destination="filesystem")
    with pytest.raises(PipelineStepFailed, match="can't merge into plain files") as failed:
        pipeline.run(convertly_source(DEMO_KEY, api.url))
    known = explained(failed.value)
    assert known
    assert (known.setting, "delta, iceberg" in known.remedy) == ("table_format", True)
    assert not api.requests
