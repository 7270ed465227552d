"""Comments in the database: what the schema tells about tables and columns."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dlt
import pytest
from helpers.history import Ask
from helpers.script import query
from helpers.warehouse import load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.loading import Target
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]
DATASET = "group"  # a keyword of SQL
DOCUMENTED = {(table, None): meaning for table, (meaning, _) in TABLES.items()} | {
    (table, name): column["description"]
    for table, (_, columns) in TABLES.items()
    for name, column in columns.items()
}
IN_DUCKDB = f"""
    SELECT table_name, NULL, comment FROM duckdb_tables() WHERE schema_name = '{DATASET}'
    UNION ALL
    SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = '{DATASET}'
"""
IN_POSTGRES = f"""
    SELECT relname, attname, description FROM pg_description
    JOIN pg_class ON pg_class.oid = objoid
    LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND attnum > 0
    WHERE relnamespace = '"{DATASET}"'::regnamespace
"""


def comments(ask: Ask, sql: str) -> dict[Any, str]:
    """Return the comments by table and column, None for the table."""
    return {(table, column): text for table, column, text in ask(sql) if text}


def assert_described(ask: Ask, sql: str, destination: str, api: DemoAPI) -> None:
    """Load, and see each documented table and column described, until that is changed by hand."""
    target = Target(destination, DATASET)
    load_into(target, api)
    assert comments(ask, sql) == DOCUMENTED
    ask(f"COMMENT ON TABLE \"{DATASET}\".jobs IS 'ours'")
    load_into(target, api)
    assert comments(ask, sql) == DOCUMENTED | {("jobs", None): "ours"}
    ask(f'DROP TABLE "{DATASET}".runs')
    load_into(target, api)
    assert comments(ask, sql) == DOCUMENTED


@pytest.fixture
def api(serve: Serve) -> DemoAPI:
    """Serve an account of one job, which has no results yet."""
    api = serve(DemoAccount(0))
    api.account.create()
    return api


def test_tables_and_columns_are_described_in_duckdb(api: DemoAPI) -> None:
    """A load that made a table describes it; a quiet one leaves the comments alone."""
    assert_described(query, IN_DUCKDB, "duckdb", api)


@pytest.mark.slow
def test_tables_and_columns_are_described_in_postgres(api: DemoAPI, in_postgres: Ask) -> None:
    """A load that made a table describes it; a quiet one leaves the comments alone."""
    in_postgres(f'DROP SCHEMA IF EXISTS "{DATASET}" CASCADE')
    assert_described(in_postgres, IN_POSTGRES, "postgres", api)


@pytest.mark.slow
def test_a_role_that_may_not_comment_loads(
    serve: Serve, in_postgres: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the tables belong to another role, a newer text is left out, and nothing fails."""
    in_postgres(f'DROP SCHEMA IF EXISTS "{DATASET}" CASCADE')
    in_postgres(f'DROP SCHEMA IF EXISTS "{DATASET}_staging" CASCADE')
    target, api = Target("postgres", DATASET), serve(DemoAccount(20))
    with monkeypatch.context() as earlier:
        earlier.setitem(TABLES, "jobs", ("as in an earlier version", TABLES["jobs"][1]))
        load_into(target, api)
    in_postgres("CREATE ROLE guest LOGIN")
    schemas = f'SCHEMA "{DATASET}", "{DATASET}_staging"'
    for what in (schemas, f"ALL TABLES IN {schemas}"):
        in_postgres(f"GRANT ALL ON {what} TO guest")
    url = os.environ["DESTINATION__POSTGRES__CREDENTIALS"].replace("//postgres:", "//guest:")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
    api.account.create()
    assert load_into(target, api).new_jobs == 1
    assert comments(in_postgres, IN_POSTGRES)["jobs", None] == "as in an earlier version"


@pytest.mark.slow
def test_the_relations_are_in_the_diagram(serve: Serve) -> None:
    """`dlt pipeline convertly schema --format mermaid` draws what refers to `jobs.id`."""
    pipeline = dlt.pipeline("convertly", destination="duckdb", dataset_name="convertly_data")
    pipeline.run(convertly_source(DEMO_KEY, serve(DemoAccount(20)).url))
    command = "-m dlt pipeline convertly schema --format mermaid"
    diagram = subprocess.check_output([sys.executable, *command.split()], text=True)
    assert '    jobs__results }|--|| jobs : "job_id"\n' in diagram
    assert '    removed_jobs |o--o| jobs : "id"\n' in diagram
    assert 'text id PK "key of the table"' in diagram
