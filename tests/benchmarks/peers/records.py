"""dlt alone: the connector's records, made beforehand, into the same tables."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt

from convertly_source.tables.schema import JOB_COLUMNS, RESULT_COLUMNS


@dlt.resource(
    primary_key="id",
    write_disposition="merge",
    columns=JOB_COLUMNS,
    nested_hints={"results": dlt.mark.make_nested_hints(columns=list(RESULT_COLUMNS.values()))},
    file_format="parquet",
)
def jobs() -> Iterator[list[dict[str, Any]]]:
    """Hand over page by page."""
    with Path("records.pickle").open("rb") as file:
        for _ in range(pickle.load(file)):  # noqa: S301 - floor.py wrote it
            yield pickle.load(file)  # noqa: S301


dlt.config["sources.data_writer.disable_compression"] = True
dlt.config["sources.data_writer.buffer_max_items"] = 500
pipeline = dlt.pipeline(
    "peer", destination=dlt.destinations.duckdb("peer.duckdb"), dataset_name="data"
)
pipeline.run(jobs())
