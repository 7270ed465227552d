"""The source as other code uses it: its name, its settings, its errors, outside a pipeline too."""

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.pipeline import PipelineContext
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.lakes import lake_rows
from helpers.lists import in_no_order
from helpers.warehouse import Place, Warehouse

import convertly_source
from convertly_source.api.client import Job
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, newest_first
from convertly_source.errors import explained

Serve = Callable[..., DemoAPI]
source: Any = convertly_source.convertly_source


def test_the_arguments_of_the_source() -> None:
    """Its arguments and their defaults are what users depend on."""
    parameters = inspect.signature(source).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "api_key": dlt.secrets.value,
        "base_url": "https://convertly.sh",
        "auth_method": "bearer",
        "status": None,
        "start_date": None,
        "end_date": None,
        "page_size": 100,
        "max_connections": 4,
        "keep_signed_urls": False,
        "requests_per_minute": None,
        "table_format": None,
        "trust_account": False,
    }
    made = source(DEMO_KEY)
    assert (made.name, made.section) == ("convertly", "convertly")
    assert list(made.resources) == ["jobs", "rejected_jobs", "removed_jobs", "runs"]


def test_the_window_is_the_incremental_of_the_resource() -> None:
    """start_date and end_date are the resource's initial_value and end_value, UTC if naive."""
    made = source(DEMO_KEY, start_date="2026-05-01", end_date=datetime(2026, 6, 1))  # noqa: DTZ001
    jobs = made.resources["jobs"]
    bound = inspect.signature(jobs._pipe.gen).parameters["created_at"].default
    assert bound.cursor_path == "created_at"
    assert bound.initial_value == datetime.fromisoformat("2026-05-01T00:00:00+00:00")
    assert bound.end_value == datetime.fromisoformat("2026-06-01T00:00:00+00:00")


@pytest.mark.parametrize("auth_method", ["bearer", "x-api-key"])
def test_the_source_is_read_without_a_pipeline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, auth_method: str
) -> None:
    """The vendor's variables are read, and the jobs come as plain records, with either header."""
    api = serve(DemoAccount(30))
    monkeypatch.setenv("CONVERTLY_API_KEY", DEMO_KEY)
    monkeypatch.setenv("CONVERTLY_BASE_URL", api.url)
    Container()[PipelineContext].deactivate()
    records = list(source(auth_method=auth_method).with_resources("jobs"))
    assert [record["id"] for record in records] == [job["id"] for job in api.account.jobs]


def end_swapped(jobs: list[Job]) -> list[Job]:
    """List the newest first, but for two of the oldest."""
    ordered = newest_first(jobs)
    ordered[-2], ordered[-4] = ordered[-4], ordered[-2]
    return ordered


@pytest.mark.parametrize("other", [in_no_order, end_swapped])
def test_a_status_list_without_order_is_read(
    warehouse: Warehouse, serve: Serve, other: Any
) -> None:
    """When only the lists of open jobs have no order, open jobs are still found in them."""

    def order(jobs: list[Job]) -> list[Job]:
        is_status_list = {job["status"] for job in jobs} == {"processing"}
        ordered: list[Job] = other(jobs) if is_status_list else newest_first(jobs)
        return ordered

    account = DemoAccount(0)
    for _ in range(12):
        account.progress(account.create())
    for _ in range(30):
        account.finish(account.create(timedelta(hours=1)))
    api = serve(DemoAPI(account, order=order))
    warehouse.load(api, page_size=5)
    for job in account.unfinished():
        account.progress(job)
    warehouse.load(api, page_size=5)
    progress = warehouse.query("SELECT DISTINCT progress FROM jobs WHERE status = 'processing'")
    assert progress == [(75,)]


def test_a_job_never_loaded_is_not_recorded_as_removed(warehouse: Warehouse, serve: Serve) -> None:
    """With a status, a job in another one that vanishes leaves no row."""
    account = DemoAccount(0)
    waiting = account.create()
    account.progress(account.create())
    api = serve(account)
    warehouse.load(api, status="processing")
    account.cancel(waiting)
    warehouse.load(api, status="processing")
    assert not warehouse.rows("removed_jobs", "id")
    assert len(warehouse.rows("jobs", "id")) == 1


def test_a_destination_that_fails_is_explained(warehouse: Warehouse, serve: Serve) -> None:
    """What dlt raises then is explained: what happened, and what to do."""
    warehouse.path.write_text("not a database, but a text that is long enough")
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.load(serve(DemoAccount(5)))
    known = explained(caught.value)
    assert known
    assert "not a valid DuckDB database" in str(known)
    assert "run again" in known.remedy


def test_an_incompatible_state_needs_a_full_refresh(warehouse: Warehouse, serve: Serve) -> None:
    """A state that a run can't continue from is refused, with the remedy, before any request."""
    api = serve(DemoAccount(5))
    warehouse.load(api)
    with warehouse.pipeline.managed_state() as state:
        stored: Any = state["sources"]["convertly"]["resources"]["jobs"]["all"]
        stored["from_another_version"] = stored.pop("cursor")
    requests = len(api.requests)
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.load(api)
    known = explained(caught.value)
    assert known
    assert "incompatible version" in str(known)
    assert (known.setting, "drop_sources" in known.remedy) == ("state", True)
    assert len(api.requests) == requests
    warehouse.pipeline.run(source(DEMO_KEY, api.url), refresh="drop_sources")
    assert len(warehouse.rows("jobs", "id")) == 5


@pytest.mark.parametrize(
    ("destination", "jobs", "found"),
    [
        ("duckdb", 500, "insert_values"),
        ("duckdb", 501, "parquet"),
        ("postgres", 501, "insert_values"),
    ],
)
def test_duckdb_gets_large_loads_as_parquet(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, destination: str, jobs: int, found: str
) -> None:
    """Without a setting, large loads of DuckDB are Parquet; the others are what dlt prefers."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://a:b@127.0.0.1/c")
    pipeline = dlt.pipeline("files", destination=destination)
    pipeline.extract(source(DEMO_KEY, serve(DemoAccount(jobs, every=timedelta(1))).url))
    pipeline.normalize()
    [package] = pipeline.list_normalized_load_packages()
    files = [job.job_file_info for job in pipeline.get_load_package_info(package).jobs["new_jobs"]]
    assert {file.file_format for file in files if file.table_name == "jobs"} == {found}


def test_making_a_source_sets_nothing_of_dlt(serve: Serve) -> None:
    """Neither a source that is made nor one that is read writes into dlt's configuration."""
    api = serve(DemoAccount(5))
    providers: list[Any] = Container()[PluggableRunContext].providers.providers

    def written() -> list[str]:
        return [provider.to_toml() for provider in providers if provider.is_writable]

    before = written()
    list(source(DEMO_KEY, api.url))
    assert written() == before
    dlt.config["load.workers"] = 1
    assert written() != before


def account_with_all() -> DemoAccount:
    """Make an account whose first load rejects a job and whose second one records a removal."""
    account = DemoAccount(120)
    del account.create()["id"]
    return account


def test_jobs_gives_rows_of_jobs_only(warehouse: Warehouse, serve: Serve) -> None:
    """What a user's functions see are the rows of `jobs`, and nothing else."""
    api = serve(account_with_all())
    seen = list[dict[str, Any]]()

    def look(row: dict[str, Any]) -> dict[str, Any]:
        seen.append(row)
        return row | {"note": row["status"].upper()}

    made = source(DEMO_KEY, api.url)
    made.resources["jobs"].add_map(look).add_filter(lambda row: row["status"] != "failed")
    warehouse.pipeline.run(made)
    assert {row["id"] for row in seen} == {job["id"] for job in api.account.jobs if "id" in job}
    kept = sorted((row["id"], row["status"].upper()) for row in seen if row["status"] != "failed")
    assert warehouse.rows("jobs", "id", "note") == kept
    assert warehouse.rows("rejected_jobs", "reason") == [("no usable id",)]


@pytest.mark.parametrize("page_limit", [None, 1])
def test_a_resource_with_another_name_feeds_the_others(
    warehouse: Warehouse, serve: Serve, page_limit: int | None
) -> None:
    """`with_name` and `table_name` put all rows into that table, and nothing into `jobs`."""
    api = serve(account_with_all())
    for _ in range(4):
        made = source(DEMO_KEY, api.url)
        renamed = made.resources["jobs"].with_name("mine")
        if page_limit:
            renamed.add_limit(page_limit)
        warehouse.pipeline.run([renamed, made.resources["rejected_jobs"]])
    assert len(warehouse.rows("mine", "id")) == 120
    assert not warehouse.rows("jobs", "1")


def test_a_table_with_another_name_is_filled(warehouse: Warehouse, serve: Serve) -> None:
    """A table name of a user's own is that of the jobs and of their results."""
    api = serve(account_with_all())
    for _ in range(2):
        made = source(DEMO_KEY, api.url)
        made.resources["jobs"].apply_hints(table_name="work")
        warehouse.pipeline.run(made)
        api.account.cancel(api.account.unfinished()[0])
    assert len(warehouse.rows("work", "id")) == 120
    assert {key for (key,) in warehouse.rows("work__results", "job_id")} <= {
        key for (key,) in warehouse.rows("work", "id")
    }
    assert not warehouse.rows("jobs", "1")
    assert len(warehouse.rows("removed_jobs", "id")) == 1
    assert len(warehouse.rows("rejected_jobs", "raw")) == 1


def test_jobs_can_be_loaded_alone(warehouse: Warehouse, serve: Serve) -> None:
    """Selected alone, `jobs` is loaded without the side tables."""
    api = serve(account_with_all())
    warehouse.pipeline.run(source(DEMO_KEY, api.url).with_resources("jobs"))
    assert len(warehouse.rows("jobs", "id")) == 120
    tables = warehouse.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'data'")
    assert {name for (name,) in tables if not name.startswith("_dlt")} == {"jobs", "jobs__results"}


@pytest.mark.parametrize("table", ["rejected_jobs", "removed_jobs"])
def test_a_side_table_alone_is_refused(warehouse: Warehouse, serve: Serve, table: str) -> None:
    """Nothing would fill it, so the error names how to select both."""
    api = serve(account_with_all())
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.pipeline.run(source(DEMO_KEY, api.url).with_resources(table))
    known = explained(caught.value)
    assert known
    assert f'source.with_resources("jobs", "{table}")' in known.remedy
    assert not api.requests
    warehouse.pipeline.run(source(DEMO_KEY, api.url).with_resources("jobs", table))
    assert len(warehouse.rows("jobs", "id")) == 120


def test_a_frozen_schema_takes_later_loads(warehouse: Warehouse, serve: Serve) -> None:
    """All tables are made by the first load, so they can be frozen from the second one on."""
    api = serve(DemoAccount(120))
    warehouse.pipeline.run(source(DEMO_KEY, api.url))
    for table in ("jobs", "rejected_jobs", "removed_jobs"):
        assert warehouse.query(f"SELECT count(*) FROM {table}")
    del api.account.create()["id"]
    api.account.cancel(api.account.unfinished()[0])
    api.account.finish(api.account.unfinished()[0])
    warehouse.pipeline.run(source(DEMO_KEY, api.url), schema_contract="freeze")
    assert len(warehouse.rows("rejected_jobs", "raw")) == 1
    assert len(warehouse.rows("removed_jobs", "id")) == 1
    api.account.create()["new_field"] = 1
    with pytest.raises(PipelineStepFailed, match="new_field"):
        warehouse.pipeline.run(source(DEMO_KEY, api.url), schema_contract="freeze")


def test_a_rejected_job_is_recorded_once(warehouse: Warehouse, serve: Serve) -> None:
    """A job that is listed again without an id is the row that it was."""
    api = serve(account_with_all())
    warehouse.load(api)
    [(load_id, *_)] = warehouse.rows("rejected_jobs", "_dlt_load_id", "raw")
    warehouse.load(api)
    warehouse.load(api, start_date="2026-05-02")
    assert warehouse.rows("rejected_jobs", "_dlt_load_id") == [(load_id,)]


@pytest.mark.slow
def test_a_limit_loses_no_side_rows(serve: Serve, tmp_path: Path) -> None:
    """Read in chunks, by runs that end anywhere, all that was rejected or removed is recorded."""
    api = serve(DemoAccount(60))
    for job in (*api.account.jobs[:50:5], api.account.create()):
        del job["id"]
    api.account.jobs = [job | {"id": job.get("id")} for job in api.account.jobs]
    warehouse = Warehouse(tmp_path)
    for number in range(40):
        if number % 2:  # a kill between two chunks: another process, another working folder
            warehouse = Warehouse(tmp_path, str(tmp_path / f"pipelines_{number}"))
        made = source(DEMO_KEY, api.url, page_size=10, max_connections=1)
        made.resources["jobs"].add_limit(2)
        warehouse.pipeline.run(made)
        if made.resources["jobs"].custom_metrics["is_complete"]:
            break
    assert len(warehouse.rows("jobs", "id")) == 50
    assert len(warehouse.rows("rejected_jobs", "raw")) == 11


@pytest.mark.slow
@pytest.mark.parametrize("place", ["delta", "iceberg"], indirect=True)
def test_an_empty_account_makes_all_tables_of_a_lake(
    serve: Serve, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first load of an empty account makes the tables, which the second one fills."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    api = serve(DemoAccount(0))
    pipeline = dlt.pipeline("lake", destination="filesystem", dataset_name="lake")
    table_format = place.arguments[-1]
    settings = {"table_format": table_format}

    def counts() -> list[int]:
        names = ("jobs", "rejected_jobs", "removed_jobs")
        return [len(lake_rows(pipeline, table_format, name)) for name in names]

    pipeline.run(source(DEMO_KEY, api.url, **settings))
    assert counts() == [0, 0, 0]
    job = api.account.create()
    del api.account.create()["id"]
    pipeline.run(source(DEMO_KEY, api.url, **settings))
    api.account.cancel(job)
    pipeline.run(source(DEMO_KEY, api.url, **settings), schema_contract="freeze")
    assert counts() == [1, 1, 1]
