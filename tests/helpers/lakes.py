"""What is in a lake."""

from typing import Any

import dlt
from dlt.common.libs.deltalake import get_delta_tables
from dlt.common.libs.pyiceberg import get_iceberg_tables


def lake_rows(pipeline: dlt.Pipeline, table_format: str, table: str) -> list[dict[str, Any]]:
    """Read a table of a lake that is in Delta or Iceberg, by dlt's own means."""
    if table_format == "delta":
        delta = get_delta_tables(pipeline, table, schema_name="convertly")[table]
        return list(delta.to_pyarrow_table().to_pylist())
    iceberg = get_iceberg_tables(pipeline, table, schema_name="convertly")[table]
    return list(iceberg.scan().to_arrow().to_pylist())
