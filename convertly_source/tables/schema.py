"""The tables that a load fills: their columns, types and meanings."""

from dlt.common.data_types.typing import TDataType
from dlt.common.schema.typing import TColumnSchema, TReferenceCardinality, TTableReference

Columns = dict[str, TColumnSchema]


def nullable_column(name: str, data_type: TDataType) -> TColumnSchema:
    """Return a column that may be null."""
    return {"name": name, "data_type": data_type, "nullable": True}


def _columns(**columns: tuple[TDataType, str]) -> Columns:
    return {
        name: {**nullable_column(name, data_type), "description": meaning}
        for name, (data_type, meaning) in columns.items()
    }


def _reference(column: str, cardinality: TReferenceCardinality) -> TTableReference:
    return {
        "label": column,
        "columns": [column],
        "referenced_table": "jobs",
        "referenced_columns": ["id"],
        "cardinality": cardinality,
    }


def _types(columns: Columns) -> dict[str, TDataType]:
    return {name: column["data_type"] or "text" for name, column in columns.items()}


JOB_COLUMNS = _columns(
    id=("text", "key of the table"),
    job_type=("text", "`convert`, `compress`, `media_tool`, `transfer`, or a newer type"),
    status=("text", "`pending`, `processing`, `completed`, `failed`, or a newer status"),
    total_files=("bigint", "number of files in the job"),
    completed_files=("bigint", "number of files converted"),
    failed_files=("bigint", "number of files that failed"),
    progress=("bigint", "percent done"),
    error_message=("text", "why the job failed"),
    created_at=("timestamp", "when the job was created (UTC)"),
    completed_at=("timestamp", "when the job ended (UTC)"),
    results_info=("json", "fields of `results` other than the files"),
)
RESULT_COLUMNS = _columns(
    job_id=("text", "`jobs.id`"),
    id=("text", "id of a stored file"),
    filename=("text", "file name"),
    mime_type=("text", "media type, for example `image/webp`"),
    download_url=("text", "link to the file, without its query string"),
    stored_file_id=("text", "id of the file in Convertly Storage"),
    value=("text", "the item, if it is not an object"),
    original_size=("bigint", "bytes before the conversion"),
    final_size=("bigint", "bytes after the conversion"),
    size_bytes=("bigint", "bytes of a stored file"),
    saved_percent=("double", "percent of bytes saved"),
    applied_quality=("double", "quality used for the conversion"),
)
REJECTED_COLUMNS = _columns(
    fingerprint=("text", "key of the table, a hash of `raw`"),
    reason=("text", "why the job can't be stored"),
    raw=("json", "the job as listed, links without their query strings; `value` if no object"),
    created_at=("timestamp", "when it was created (UTC), or the next older job in the list"),
    status=("text", "its status, empty without one"),
    noticed_at=("timestamp", "when it was first seen (UTC)"),
)
REMOVED_COLUMNS = _columns(
    id=("text", "`jobs.id`, key of the table"),
    created_at=("timestamp", "when the job was created (UTC)"),
    last_status=("text", "status when last seen"),
    noticed_at=("timestamp", "when it was first found missing (UTC)"),
)
RUN_COLUMNS = _columns(
    run_id=("text", "key of the table"),
    kind=("text", "`load`, `refresh`, `window` or `verify`"),
    started_at=("timestamp", "when the run began (UTC)"),
    finished_at=("timestamp", "when all was read (UTC)"),
    listed=("bigint", "number of jobs that the API listed when the run began"),
    held=("bigint", "how many of these are loaded (at rest, all); null for a partial load"),
    jobs_loaded=("bigint", "number of jobs loaded by the run"),
    results_loaded=("bigint", "number of rows of `jobs__results` loaded by the run"),
    rejected=("bigint", "number of jobs that were found and can't be stored"),
    removed=("bigint", "number of jobs that were found missing"),
    open_jobs=("bigint", "number of jobs that had not ended"),
    requests=("bigint", "number of requests sent, repeated ones too"),
)
TABLES: dict[str, tuple[str, Columns]] = {
    "jobs": ("one row per job", JOB_COLUMNS),
    "jobs__results": ("one row per file or other item of `results`", RESULT_COLUMNS),
    "rejected_jobs": ("jobs that can't be stored", REJECTED_COLUMNS),
    "removed_jobs": ("jobs that are no longer listed", REMOVED_COLUMNS),
    "runs": ("one row per run that came to its end, also when nothing was new", RUN_COLUMNS),
}
for required in (JOB_COLUMNS["id"], JOB_COLUMNS["created_at"], RESULT_COLUMNS["job_id"]):
    required["nullable"] = False

REFERENCES = {  # they describe the tables: dlt makes no constraint of them
    "jobs__results": [_reference("job_id", "many_to_one")],
    "removed_jobs": [_reference("id", "zero_to_one")],
}
HINTS = {  # of one destination: others pass them over
    "jobs": {"x-bigquery-cluster-columns": ["created_at", "id"]},
}
JOB_TYPES = _types(JOB_COLUMNS)
RESULT_TYPES = _types(RESULT_COLUMNS)
