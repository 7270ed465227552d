"""`pipelines/dbt` in a real dbt, on what was loaded into DuckDB, PostgreSQL and BigQuery."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlglot
from helpers.dbts import DbtProject
from helpers.figures import SQL_DATABASES, Row, assert_figures, select
from helpers.script import load_from
from helpers.servers import BIGQUERY
from helpers.sources_yml import SOURCES, sources
from helpers.warehouse import Place

from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.files import shipped
from convertly_source.loading.views import MODELS

pytestmark = pytest.mark.no_cover
Serve = Callable[..., DemoAPI]
A_MONTH_LATER = "UPDATE runs SET finished_at = finished_at - INTERVAL '30 days'"
MARTS = "convertly_marts"  # the schema of the profiles
COMMENTS = {
    "duckdb": f"""
        SELECT table_name, column_name, comment FROM duckdb_columns()
        WHERE schema_name = '{MARTS}'""",
    "postgres": f"""
        SELECT relname, attname, col_description(attrelid, attnum)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = '{MARTS}'::regnamespace AND attnum > 0""",
}
OTHERS = ("snowflake", "redshift")


def test_the_sources_are_the_tables() -> None:
    """Each table and column of the definitions is in `sources.yml`, and nothing else."""
    assert SOURCES.read_text() == sources(), "to correct it: python tests/helpers/sources_yml.py"


@pytest.mark.slow
@SQL_DATABASES
def test_a_build_has_the_figures_of_the_account(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marts have what is computed here from the account's jobs, and all columns a comment.

    All tests pass, but a type of job that is new makes one warn. The tables are fresh after a run
    that found nothing new.
    """

    def ask(sql: str) -> list[Row]:
        return select(place, tmp_path, monkeypatch, sql)

    api = serve(DemoAccount(400))
    api.account.create(job_type="transcribe")
    jobs = list(api.account.jobs)
    gone = api.account.unfinished()[0]
    load_from(api, *place.arguments, **place.settings)
    api.account.cancel(gone)
    load_from(api, *place.arguments, **place.settings)
    ask(A_MONTH_LATER)
    load_from(api, *place.arguments, **place.settings)
    assert ask("SELECT jobs_loaded, removed FROM runs ORDER BY 1 DESC, 2 DESC") == [
        *[(401, 0), (0, 1), (0, 0)]
    ]

    project = DbtProject.of(place, tmp_path)
    assert project.run("build", "source freshness") == [True, True]
    statuses = project.statuses()
    assert {statuses.pop(model) for model in MODELS} == {"success"}
    [warned] = [name for name, status in statuses.items() if status != "pass"]
    assert statuses[warned] == "warn"
    assert warned.startswith("source_accepted_values_convertly_jobs_job_type")
    assert_figures(lambda columns, view: ask(f"SELECT {columns} FROM {MARTS}.{view}"), jobs, gone)
    documented = {
        (node["name"], name, column["description"])
        for node in project.read("manifest")["nodes"].values()
        for name, column in node["columns"].items()
    }
    comments = {*ask(COMMENTS[place.arguments[-1]])}
    assert comments == documented
    assert all(comment for *_, comment in comments)


@pytest.mark.parametrize("place", [BIGQUERY], indirect=True)
def test_a_build_on_bigquery_has_the_figures_of_the_account(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tests pass, and the marts have the same figures, but the percentiles are approximate."""
    api = serve(DemoAccount(100))
    jobs = list(api.account.jobs)
    gone = api.account.unfinished()[0]
    load_from(api, *place.arguments, **place.settings)
    api.account.cancel(gone)
    load_from(api, *place.arguments, **place.settings)
    project = DbtProject.of(place, tmp_path)
    assert project.run("build", "source freshness") == [True, True]
    assert {*project.statuses().values()} == {"success", "pass"}

    def ask(columns: str, view: str) -> list[Row]:
        return select(place, tmp_path, monkeypatch, f"SELECT {columns} FROM {MARTS}.{view}")

    assert_figures(ask, jobs, gone, percentiles=())


@pytest.mark.slow
@SQL_DATABASES
def test_what_is_old_or_lost_fails(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a run for long, `source freshness` fails; a job that is lost makes a test fail."""
    load_from(serve(DemoAccount(60)), *place.arguments, **place.settings)
    lose = "DELETE FROM jobs WHERE id = (SELECT max(job_id) FROM jobs__results)"
    for sql in (A_MONTH_LATER, lose):
        select(place, tmp_path, monkeypatch, sql)
    project = DbtProject.of(place, tmp_path)
    assert project.run("source freshness", "test --select source:*") == [False, False]
    [runs] = project.read("sources")["results"]
    assert (runs["unique_id"], runs["status"]) == ("source.convertly.convertly.runs", "error")
    [failed] = [name for name, status in project.statuses().items() if status != "pass"]
    assert failed.startswith("source_relationships_convertly_jobs__results_job_id")


@pytest.mark.slow
def test_the_models_compile_for_other_databases(tmp_path: Path) -> None:
    """Each adapter makes SQL that has its database's syntax, without a connection."""
    names = re.findall(r"env_var\('(\w+)'\)", shipped("dbt/profiles.yml").read_text())
    project = DbtProject.make(tmp_path, dict.fromkeys(names, "any"))
    command = "compile --no-populate-cache --no-introspect --target {0} --target-path {0}"
    assert all(project.run(*map(command.format, OTHERS)))
    for target in OTHERS:
        models = list((project.folder / target / "compiled").rglob("*.sql"))
        assert {*MODELS} <= {model.stem for model in models}
        assert all(sqlglot.parse_one(model.read_text(), read=target) for model in models)
