"""Comments on tables and columns, in databases where dlt leaves them out."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseException

from convertly_source.loading.target import open_client

DESTINATIONS = ("duckdb", "ducklake", "motherduck", "postgres")

Descriptions = dict[str, dict[str, str]]  # by table and column; without a column, of the table


def descriptions(pipeline: dlt.Pipeline) -> Descriptions:
    """Return what the schema tells about the tables that were made, empty where it is silent."""
    if not pipeline.default_schema_name:
        return {}
    return {
        table["name"]: {
            "": table.get("description") or "",
            **{name: column.get("description") or "" for name, column in table["columns"].items()},
        }
        for table in pipeline.default_schema.data_tables(seen_data_only=True)
    }


def add_comments(pipeline: dlt.Pipeline, known: Descriptions | None = None) -> None:
    """Comment on the tables that differ from the known ones, where the role may do so."""
    known = known or {}
    changed = {
        table: texts for table, texts in descriptions(pipeline).items() if texts != known.get(table)
    }
    destination = pipeline.destination.destination_type.rpartition(".")[2]
    if not changed or destination not in DESTINATIONS:
        return
    with open_client(pipeline) as client:
        for table, texts in changed.items():
            # One table at a time: a transaction that locks several may block another load.
            with suppress(DatabaseException), client.begin_transaction():
                client.execute_many([*_statements(client, table, texts)])


def _statements(client: Any, table: str, texts: dict[str, str]) -> Iterator[str]:
    name = client.make_qualified_table_name(table)
    for column, text in texts.items():
        what = f"COLUMN {name}.{client.escape_column_name(column)}" if column else f"TABLE {name}"
        if text:
            yield f"COMMENT ON {what} IS {client.capabilities.escape_literal(text)}"
