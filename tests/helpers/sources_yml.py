"""Write pipelines/dbt/models/sources.yml from the tables: python tests/helpers/sources_yml.py."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dlt.common.schema.typing import TColumnSchema

from convertly_source.tables.schema import TABLES

SOURCES = Path(__file__).resolve().parents[2] / "pipelines" / "dbt" / "models" / "sources.yml"
HEAD = """\
sources:
  - name: convertly
    description: "The jobs of a Convertly account, loaded by convertly-source"
    schema: "{{ var('convertly_dataset') }}"
    tables:
"""
FRESHNESS = """\
        config:
          loaded_at_field: finished_at
          freshness: # also an account where nothing happens has a row for each run
            warn_after: {count: 3, period: hour}
            error_after: {count: 24, period: hour}
"""
RELATION = """\
              - relationships:
                  arguments: {to: "source('convertly', 'jobs')", field: id}
"""
ACCEPTED = """\
              - accepted_values:
                  arguments: {values: %s}
                  config: {severity: warn}
"""
CLOSED = ("job_type", "status", "kind")  # columns whose meaning lists their values


def sources() -> str:
    """Return the file: tables, columns, meanings, and the tests that follow from the meanings."""
    return HEAD + "".join(_tables())


def _tables() -> Iterator[str]:
    for table, (meaning, columns) in TABLES.items():
        yield f"      - name: {table}\n        description: {json.dumps(meaning)}\n"
        if table == "runs":
            yield FRESHNESS
        yield "        columns:\n"
        for column in columns.values():
            yield f"          - name: {column['name']}\n"
            yield f"            description: {json.dumps(column['description'])}\n"
            if tests := "".join(_data_tests(column)):
                yield f"            data_tests:\n{tests}"


def _data_tests(column: TColumnSchema) -> Iterator[str]:
    meaning = column["description"] or ""
    is_key = "key of the table" in meaning
    if is_key:
        yield "              - unique\n"
    if is_key or not column["nullable"]:
        yield "              - not_null\n"
    if meaning.startswith("`jobs.id`"):
        yield RELATION
    values = re.findall("`(.+?)`", meaning)
    if column["name"] in CLOSED and values:
        yield ACCEPTED % f"[{', '.join(values)}]"


if __name__ == "__main__":
    SOURCES.write_text(sources())
