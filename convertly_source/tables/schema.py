"""The tables that a load fills: their columns, types and meanings."""

from dlt.common.data_types.typing import TDataType
from dlt.common.schema.typing import TColumnSchema

Columns = dict[str, TColumnSchema]


def _columns(**columns: tuple[TDataType, str]) -> Columns:
    return {
        name: {"name": name, "data_type": data_type, "description": meaning, "nullable": True}
        for name, (data_type, meaning) in columns.items()
    }


JOB_COLUMNS = _columns(
    id=("text", "the key"),
    job_type=("text", "`convert`, `compress`, `media_tool`, `transfer`, or a newer one"),
    status=("text", "`pending`, `processing`, `completed`, `failed`, or a newer one"),
    total_files=("bigint", "files of the job"),
    completed_files=("bigint", "files that are done"),
    failed_files=("bigint", "files that failed"),
    progress=("bigint", "percent"),
    error_message=("text", "why it failed"),
    created_at=("timestamp", "when it was created (UTC)"),
    completed_at=("timestamp", "when it ended (UTC)"),
    results_info=("json", "what stands beside the files in `results`"),
)
RESULT_COLUMNS = _columns(
    job_id=("text", "`jobs.id`"),
    filename=("text", "name of the file"),
    mime_type=("text", "its type, as `image/webp`"),
    download_url=("text", "its link, without the query string"),
    stored_file_id=("text", "its id in the storage"),
    value=("text", "the item, where it is no object"),
    original_size=("bigint", "bytes before"),
    final_size=("bigint", "bytes after"),
    size_bytes=("bigint", "bytes"),
    saved_percent=("double", "percent of the bytes that were saved"),
    applied_quality=("double", "quality that was chosen"),
)
REJECTED_COLUMNS = _columns(
    fingerprint=("text", "the key, a hash of `raw`"),
    reason=("text", "why the job can't be stored"),
    raw=("json", "the job as it came, links without query strings"),
    noticed_at=("timestamp", "when it was met first (UTC)"),
)
REMOVED_COLUMNS = _columns(
    id=("text", "`jobs.id`, the key"),
    created_at=("timestamp", "when it was created (UTC)"),
    last_status=("text", "as last seen: `pending`, `processing`"),
    noticed_at=("timestamp", "when it was missed first (UTC)"),
)
TABLES: dict[str, tuple[str, Columns]] = {
    "jobs": ("one row a job", JOB_COLUMNS),
    "jobs__results": ("one row a file or item", RESULT_COLUMNS),
    "rejected_jobs": ("jobs that can't be stored", REJECTED_COLUMNS),
    "removed_jobs": ("unfinished jobs that are no longer listed", REMOVED_COLUMNS),
}
for required in (JOB_COLUMNS["id"], JOB_COLUMNS["created_at"], RESULT_COLUMNS["job_id"]):
    required["nullable"] = False
JOB_TYPES, RESULT_TYPES = (
    {name: column["data_type"] or "double" for name, column in columns.items()}
    for columns in (JOB_COLUMNS, RESULT_COLUMNS)
)
