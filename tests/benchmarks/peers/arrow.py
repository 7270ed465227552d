"""What arrow tables would give: pages read by this connector, handed to dlt as two tables.

`records` makes them of the connector's own records, and keeps its promises on shapes and links.
`columns` makes them of the jobs as they came, in the one shape that it knows, and cleans columns.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.normalizers.naming.snake_case import NamingConvention

from convertly_source.api.client import JobsClient
from convertly_source.reading.job import BEGINNING, END, ListedJob
from convertly_source.reading.listing import Listing
from convertly_source.tables.records import RecordMapper
from convertly_source.tables.schema import JOB_COLUMNS, RESULT_COLUMNS

TYPES = {
    "text": pa.string(),
    "json": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
}
JOBS, RESULTS = (
    pa.schema(
        [
            pa.field(name, TYPES[column["data_type"]], nullable=name not in ("id", "job_id"))
            for name, column in columns.items()
        ]
    )
    for columns in (JOB_COLUMNS, RESULT_COLUMNS)
)
NAMES = {
    "filename": "filename",
    "mime_type": "mimeType",
    "download_url": "downloadUrl",
    "stored_file_id": "storedFileId",
    "original_size": "originalSize",
    "final_size": "finalSize",
    "saved_percent": "savedPercent",
    "applied_quality": "appliedQuality",
}
TIMES = ("created_at", "completed_at")


def of_records(rows: list[ListedJob]) -> tuple[pa.Table, pa.Table]:
    """Make tables of records."""
    shape = RecordMapper(NamingConvention().normalize_identifier)
    records = [shape.job_record(row) for row in rows]
    results = [result for record in records for result in record["results"]]
    return pa.Table.from_pylist(records, JOBS), pa.Table.from_pylist(results, RESULTS)


def of_columns(rows: list[ListedJob]) -> tuple[pa.Table, pa.Table]:
    """Make tables of what came; parse times and cut links a column at a time."""
    jobs = [row.job for row in rows]
    plain = [name for name in JOBS.names if name not in (*TIMES, "results_info")]
    columns: dict[str, Any] = {name: [job[name] for job in jobs] for name in plain}
    for name in TIMES:
        texts = pa.array([job[name] for job in jobs], pa.string())
        columns[name] = texts.cast(JOBS.field(name).type)
    columns["results_info"] = pa.nulls(len(jobs), pa.string())
    pairs = [(job["id"], file) for job in jobs for file in job["results"]["files"]]
    children: dict[str, Any] = {
        ours: [file[name] for _, file in pairs] for ours, name in NAMES.items()
    }
    children["job_id"] = [key for key, _ in pairs]
    links = pa.array(children["download_url"], pa.string())
    children["download_url"] = pc.replace_substring_regex(links, r"\?.*", "")
    for name in ("value", "size_bytes"):
        children[name] = pa.nulls(len(pairs), RESULTS.field(name).type)
    return (
        pa.table({name: columns[name] for name in JOBS.names}, JOBS),
        pa.table({name: children[name] for name in RESULTS.names}, RESULTS),
    )


@dlt.resource(name="jobs", primary_key="id", write_disposition="merge")
def jobs() -> Iterator[Any]:
    """Read all pages."""
    tables = {"records": of_records, "columns": of_columns}[sys.argv[1]]
    connections = int(os.environ.get("SOURCES__CONVERTLY__MAX_CONNECTIONS", "4"))
    client = JobsClient(os.environ["API_KEY"], os.environ["API_URL"], max_connections=connections)
    for rows in Listing(client, 100, connections).read(BEGINNING, END):
        parents, children = tables(rows)
        yield dlt.mark.with_table_name(parents, "jobs")
        yield dlt.mark.with_table_name(children, "jobs__results")


resource = jobs()
resource.apply_hints(
    table_name="jobs__results",
    primary_key=(),
    merge_key="job_id",
    write_disposition="merge",
    create_table_variant=True,
)
pipeline = dlt.pipeline(
    "peer", destination=dlt.destinations.duckdb("peer.duckdb"), dataset_name="data"
)
pipeline.run(resource, loader_file_format="parquet")
