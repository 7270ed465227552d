"""A destination that refuses rows: two lines, nothing pending, and the next run reads again."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.content import dlt_log
from helpers.script import assert_refused, content, listed, load_from, query
from helpers.servers import postgres
from helpers.warehouse import Warehouse, load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply
from convertly_source.errors import ConvertlyError, SettingsError, explained
from convertly_source.loading import Target
from convertly_source.loading.refused import refusals_explained, without_failures_in_the_log

Serve = Callable[..., DemoAPI]


def run(pipeline: dlt.Pipeline, api: DemoAPI) -> None:
    """Load once, with refusals explained."""
    source = convertly_source(DEMO_KEY, api.url)
    pipeline.extract(source)
    pipeline.normalize()
    with without_failures_in_the_log(), refusals_explained(pipeline):
        pipeline.load()


def refuse_progress(pipeline: dlt.Pipeline, *, refuse: bool) -> None:
    """Let the destination take no progress beyond 127, or any again."""
    types = {"duckdb": ("TINYINT", "BIGINT"), "postgres": ("boolean USING true", "bigint USING 0")}
    narrow, wide = types[pipeline.destination.destination_name]
    with pipeline.sql_client() as client:
        table = client.make_qualified_table_name("jobs")
        client.execute_sql(f"ALTER TABLE {table} ALTER progress TYPE {narrow if refuse else wide}")


def cursor(pipeline: dlt.Pipeline) -> Any:
    """Return how far the account is loaded."""
    state: Any = pipeline.state
    return state["sources"]["convertly"]["resources"]["jobs"]["all"]["cursor"]


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def test_a_refused_load_is_explained_and_not_kept(
    serve: Serve, servers: Any, tmp_path: Path, place: str
) -> None:
    """The error names the table and quotes the destination; the next run loads what was left."""
    credentials = servers(postgres) if place == "postgres" else str(tmp_path / "jobs.duckdb")
    destination = getattr(dlt.destinations, place)(credentials)
    pipeline = dlt.pipeline(
        "refused", str(tmp_path / "p"), destination=destination, dataset_name=f"refused_{place}"
    )
    api = serve(DemoAccount(20))
    run(pipeline, api)
    loaded = cursor(pipeline)
    api.account.create(progress=5000)
    refuse_progress(pipeline, refuse=True)
    for _ in range(2):
        with (
            dlt_log() as lines,
            pytest.raises(ConvertlyError, match="refused rows of table jobs: ") as caught,
        ):
            run(pipeline, api)
        assert not lines
        assert {"duckdb": "value 5000", "postgres": "progress"}[place] in str(caught.value)
        assert f"{caught.value}{caught.value.remedy}".isprintable()
        assert explained(caught.value) is caught.value
        assert not pipeline.has_pending_data
        assert cursor(pipeline) == loaded
    refuse_progress(pipeline, refuse=False)
    run(pipeline, api)
    with pipeline.sql_client() as client:
        sql = f"SELECT count(*) FROM {client.make_qualified_table_name('jobs')}"
        assert client.execute_sql(sql) == [(21,)]


def test_a_pipeline_of_ones_own_is_explained_too(warehouse: Warehouse, serve: Serve) -> None:
    """After dlt's own `run`, `explained` tells the same; dlt keeps that load for its next try."""
    api, pipeline = serve(DemoAccount(5)), warehouse.pipeline
    pipeline.run(convertly_source(DEMO_KEY, api.url))
    api.account.create(progress=5000)
    refuse_progress(pipeline, refuse=True)
    with pytest.raises(PipelineStepFailed) as caught:
        pipeline.run(convertly_source(DEMO_KEY, api.url))
    assert "refused rows of table jobs: " in str(explained(caught.value))
    assert pipeline.has_pending_data


def test_other_errors_are_left_alone(warehouse: Warehouse, serve: Serve) -> None:
    """An error of the API or of another kind passes as it is."""
    api = serve(DemoAccount(5))
    api.fault = lambda _: Reply(401, {})
    source = convertly_source(DEMO_KEY, api.url)
    with pytest.raises(PipelineStepFailed) as caught, refusals_explained(warehouse.pipeline):
        warehouse.pipeline.run(source)
    assert isinstance(explained(caught.value), SettingsError)
    with suppress(KeyError), refusals_explained(warehouse.pipeline):
        raise KeyError


@pytest.mark.parametrize("setting", ["LOAD__RAISE_ON_FAILED_JOBS", "RAISE_ON_FAILED_JOBS"])
def test_refused_rows_are_never_left_out(serve: Serve, setting: str) -> None:
    """A setting of dlt that lets a load go on without them is not followed."""
    api = serve(DemoAccount(20))
    assert load_from(api).returncode == 0
    query("ALTER TABLE convertly_data.jobs ALTER progress TYPE TINYINT")
    api.account.create(progress=5000)
    done = load_from(api, **{setting: "false"})
    assert_refused(done, 1, "refused rows of table jobs: ")
    query("ALTER TABLE convertly_data.jobs ALTER progress TYPE BIGINT")
    assert "21 listed, 21 held." in load_from(api, **{setting: "false"}).stdout
    assert content() == listed(api.account)


@pytest.mark.slow
def test_a_load_that_was_refused_is_not_tried_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no lock, a package that was dropped is not taken for another load."""
    monkeypatch.setattr("convertly_source.loading.unlocked.MAX_PAUSE", 0)
    api = serve(DemoAccount(20))
    target = Target()
    load_into(target, api)
    query("ALTER TABLE convertly_data.jobs ALTER progress TYPE TINYINT")
    api.account.create(progress=5000)
    before = len(api.requests)
    with pytest.raises(ConvertlyError, match="refused rows of table jobs: "):
        load_into(target, api)
    assert len(api.requests) - before < 5
    query("ALTER TABLE convertly_data.jobs ALTER progress TYPE BIGINT")
    assert load_into(target, api).rows["jobs"] == 1
