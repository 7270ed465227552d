"""Real destinations: a living account is loaded three times, and compared with what is there."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from dlt.common.configuration.specs.base_configuration import extract_inner_hint
from dlt.common.destination import Destination
from dlt.common.libs.deltalake import get_delta_tables
from dlt.common.libs.pyiceberg import get_iceberg_tables
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.model import summary
from helpers.script import README, load_from
from helpers.servers import postgres
from helpers.warehouse import Place

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import explained
from convertly_source.tables.records import fingerprint

Serve = Callable[..., DemoAPI]
Tables = dict[str, list[dict[str, Any]]]
COLUMNS = {
    "jobs": ("id", "status", "progress", "completed_files", "error_message"),
    "jobs__results": ("job_id", "_dlt_list_idx", "filename", "value"),
    "rejected_jobs": ("fingerprint", "raw"),
    "removed_jobs": ("id",),
}


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
    assert len(tables["jobs__results"]) == sum(map(len, results.values()))
    rejected = sorted(row["fingerprint"] for row in tables["rejected_jobs"])
    assert rejected == sorted(fingerprint(job) for job in account.jobs if not job["id"])
    raw = tables["rejected_jobs"][0]["raw"]
    assert (json.loads(raw) if isinstance(raw, str) else raw)["id"] is None
    assert sorted(row["id"] for row in tables["removed_jobs"]) == sorted(gone)


@pytest.mark.parametrize(
    "place",
    [
        "duckdb",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("ducklake", "postgres", "sqlalchemy", "sqlalchemy on mariadb"),
                *("delta", "iceberg", "delta on s3", "iceberg on s3"),
            )
        ),
    ],
    indirect=True,
)
def test_a_destination_equals_the_account(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First load, changes, and again from a fresh working folder: the tables are the account."""
    api = serve(DemoAccount(250))
    account, gone = api.account, []
    account.create()["id"] = None
    for step in range(3):
        folder = {"DLT_DATA_DIR": str(tmp_path / ("dlt" if step < 2 else "fresh"))}
        done = load_from(api, *place.arguments, "--chunk-pages", "2", **place.settings, **folder)
        assert done.returncode == 0, done.stderr
        assert "WARN" not in done.stderr
        first, second, third, *_ = account.unfinished()
        account.progress(first)
        account.finish(second)
        gone.append(third["id"])
        account.cancel(third)
        account.create()["id"] = None
        account.finish(account.create(error_message="late"))
    done = load_from(api, *place.arguments, **place.settings)
    assert done.returncode == 0, done.stderr
    tables = read(place, tmp_path, monkeypatch)
    assert_equal(tables, account, gone)
    # A window reads its jobs again: what is there already is not doubled.
    done = load_from(api, *place.arguments, "--end-date", "2027-01-01", **place.settings)
    assert done.returncode == 0, done.stderr
    assert_equal(read(place, tmp_path, monkeypatch), account, gone)


@pytest.mark.slow
def test_the_rights_in_the_readme_are_enough(serve: Serve, servers: Any) -> None:
    """On PostgreSQL, a role with the rights that the README lists loads, and makes views."""
    readme = README.read_text()
    url = servers(postgres)
    rights = re.search(r"```sql\n(CREATE ROLE.*?)```", readme, re.DOTALL)
    assert rights
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(rights[1])
        connection.commit()
    own = url.replace("postgres:unused", "convertly_loader:unused")
    api = serve(DemoAccount(60))
    for arguments in (["--models"], ["--full-refresh"], ["--models"]):
        settings = {"DESTINATION__POSTGRES__CREDENTIALS": own}
        done = load_from(api, "--destination", "postgres", *arguments, **settings)
        assert done.returncode == 0, done.stderr
        api.account.finish(api.account.unfinished()[0])


TESTED = {"DUCKDB", "DUCKLAKE", "POSTGRES", "SQLALCHEMY", "FILESYSTEM"}
NAMED = re.findall(r"`(DESTINATION__([A-Z]+)__\w+?)=(\S+?)`", README.read_text())


def test_the_settings_in_the_readme_are_dlts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting of the README's table of destinations is taken by the destination it is for."""
    named = [setting for setting in NAMED if setting[1] in TESTED]
    assert {kind for _, kind, _ in named} == TESTED
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{key}", "test")
    for name, kind, value in named:
        monkeypatch.setenv(name, value)
        pipeline = dlt.pipeline(f"of_{kind.lower()}", destination=kind.lower(), dataset_name="data")
        config: Any = pipeline.destination_client().config
        is_url = name.endswith("BUCKET_URL")
        holder = getattr(config.credentials, "storage" if is_url else "catalog", config.credentials)
        holder = config if kind == "FILESYSTEM" else holder
        found = holder.bucket_url if is_url else holder.to_native_representation()
        assert value.rpartition("/")[2] in found


def credentials_of(kind: str) -> Any:
    """Make the empty credentials of a destination, whose driver need not be installed."""
    destination: Any = Destination.from_reference(kind.lower())
    hint = destination.spec.get_resolvable_fields()["credentials"]
    return extract_inner_hint(hint)()


def test_settings_of_untested_destinations_are_dlts() -> None:
    """Where a destination can't be run, its settings in the README are at least those of dlt."""
    urls = {kind: value for _, kind, value in NAMED if kind not in TESTED}
    fields = re.findall(
        r"`DESTINATION__([A-Z]+)__CREDENTIALS__(\w+)`((?:, `\.\.\._\w+`)+)", README.read_text()
    )
    assert {*urls, *(kind for kind, _, _ in fields)} == {
        *("BIGQUERY", "SNOWFLAKE", "REDSHIFT", "MOTHERDUCK", "CLICKHOUSE", "DATABRICKS"),
    }
    for kind, url in urls.items():
        credentials = credentials_of(kind)
        credentials.parse_native_representation(url)
        assert credentials.database == "database"
    for kind, first, rest in fields:
        names = [first, *re.findall(r"_(\w+)", rest)]
        assert {name.lower() for name in names} <= set(credentials_of(kind).get_resolvable_fields())


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
