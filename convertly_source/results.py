"""How one job of the API becomes rows: one shape, whatever shape its `results` had."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dlt.common.data_types.typing import TDataType
from dlt.common.json import PUA_CHARACTER_MAX, PUA_START, json
from dlt.common.schema.typing import TColumnSchema
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.utils import digest128

from convertly_source.client import Job

OPEN_STATUSES = ("pending", "processing")
FINAL_STATUSES = ("completed", "failed")


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

BIGINT = 2**63  # and more don't fit
LONGEST_BIGINT = 17  # characters that 64 bits hold, decimal or hexadecimal
_DLT_MARKS = "".join(map(chr, range(PUA_START, PUA_START + PUA_CHARACTER_MAX + 1)))
_DATA_URL = re.compile(r"\s*(data:[^\s,;]*)[;,].*", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"\s*https?://", re.IGNORECASE)
_LINK_IN_TEXT = re.compile(r"(https?://[^?]*)\?\S+", re.IGNORECASE)


class Row(NamedTuple):
    """A job as it was listed, with what can be known of it without its other fields."""

    job: Job
    id: str | None
    created_at: datetime | None

    @property
    def is_usable(self) -> bool:
        """Whether the job can be stored: it has an id and a time of creation."""
        return bool(self.id) and self.created_at is not None

    @property
    def status(self) -> str:
        """The status as text, empty when there is none."""
        return str(self.job.get("status") or "")

    @property
    def is_final(self) -> bool:
        """Whether the job has ended. A status that is not documented has not."""
        return self.status in FINAL_STATUSES


def row(job: Job) -> Row:
    """Read a job's id and time of creation; what is not usable is None."""
    identity = job.get("id")
    usable = isinstance(identity, (str, int)) and not isinstance(identity, bool)
    return Row(job, str(identity).strip() or None if usable else None, _time(job.get("created_at")))


def fingerprint(job: Job) -> str:
    """Hash a job's content, links without their queries: they are signed anew in each answer."""
    return digest128(json.dumps(without_credentials(job), sort_keys=True))


def rejected_record(row: Row) -> dict[str, Any]:
    """Record a job that can't be stored, as it came (links without queries), with the reason."""
    missing = [name for name in ("id", "created_at") if not getattr(row, name)]
    return {
        "fingerprint": fingerprint(row.job),
        "reason": f"no usable {' and no usable '.join(missing)}",
        "raw": without_credentials(row.job),
        "noticed_at": datetime.now(timezone.utc),
    }


def removed_record(key: str, created_at: datetime, status: str) -> dict[str, Any]:
    """Record an unfinished job that is no longer listed."""
    return {
        "id": key,
        "created_at": created_at,
        "last_status": status,
        "noticed_at": datetime.now(timezone.utc),
    }


def split_results(results: Any) -> tuple[list[Any], dict[str, Any] | None]:
    """Split `results` into its items, in order, and what stands beside them, if anything does."""
    if not isinstance(results, dict):
        return _items(results), None
    for key in ("files", "file"):
        if key in results and isinstance(results[key], (list, dict, type(None))):
            info = {name: value for name, value in results.items() if name != key}
            return _items(results[key]), info or None
    return _items(results), None


def without_credentials(value: Any, *, keep_links: bool = False) -> Any:
    """Copy a JSON value with `data:` URLs cut to their media type and links to their address."""
    if isinstance(value, str):
        return _text(value, keep_links=keep_links)
    if isinstance(value, dict):
        return {
            _text(key, keep_links=keep_links): without_credentials(item, keep_links=keep_links)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_credentials(item, keep_links=keep_links) for item in value]
    return value


def _text(value: str, *, keep_links: bool) -> str:
    if value.isascii() and ":" not in value:
        return value
    value = value.lstrip(_DLT_MARKS)  # before a number or a date, dlt would take them for its own
    if data := _DATA_URL.fullmatch(value):
        return data[1]
    if keep_links or "?" not in value:
        return value
    if _LINK.match(value):
        return value.partition("?")[0]
    return _LINK_IN_TEXT.sub(r"\1", value)


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None or value == {} else [value]


def _as_object(item: Any) -> dict[str, Any]:
    if isinstance(item, list):
        return {"list": item}  # the column that dlt itself would give a list in a list
    return item if isinstance(item, dict) else {"value": item}


class _Columns(dict[str, tuple[str, TDataType]]):
    """The columns of keys as they come, by name and type; an account has few different keys."""

    def __init__(self, name_of: Callable[[str], str], types: Mapping[str, TDataType]) -> None:
        super().__init__()
        self._name_of, self._types = name_of, types

    def __missing__(self, key: str) -> tuple[str, TDataType]:
        name = self._name_of(key)
        self[key] = name, self._types.get(name, "double")
        return self[key]


class Shape:
    """Gives keys their column names and values their column's type, without credentials.

    `naming` makes column names of keys, as dlt's naming conventions do.
    """

    def __init__(self, naming: Callable[[str], str], *, keep_signed_urls: bool = False) -> None:
        self._naming, self._keep_links = naming, keep_signed_urls
        self._job, self._result, self._other = (
            _Columns(self._name, types) for types in (JOB_TYPES, RESULT_TYPES, {})
        )

    def job_record(self, row: Row) -> dict[str, Any]:
        """Make the record of table `jobs`, its `results` as the list of rows of `jobs__results`.

        `results` and `results_info` stay empty until the job has ended.
        """
        items, info = split_results(row.job.get("results") if row.is_final else None)
        record = self._record({**row.job, "results": None, "created_at": None}, self._job)
        results = [self._record(_as_object(item), self._result) for item in items]
        for result in results:
            result["job_id"] = row.id
        record |= {"id": row.id, "created_at": row.created_at, "results": results}
        record["results_info"] = info and without_credentials(info, keep_links=self._keep_links)
        return record

    def _name(self, key: str) -> str:
        text = _text(key, keep_links=self._keep_links)
        name = self._naming(text) if text.strip() else "x"
        return name.removeprefix("_") if name.startswith("_dlt_") else name

    def _record(self, value: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
        """Shape an object: of keys that get one name, a value that is null yields."""
        record: dict[str, Any] = {}
        for key, item in value.items():
            if item is not None:
                name, data_type = columns[key]
                if name not in record:
                    kind = type(item)
                    is_plain = (  # as most values are; a call would take longer than this look
                        (kind is str and data_type == "text" and ":" not in item and item.isascii())
                        or (kind is int and data_type == "bigint" and -BIGINT <= item < BIGINT)
                        or (kind is float and data_type == "double")
                    )
                    record[name] = item if is_plain else self._value(item, data_type)
        return record

    def _value(self, value: Any, data_type: TDataType) -> Any:
        if isinstance(value, str):
            return _typed(_text(value, keep_links=self._keep_links), data_type)
        if isinstance(value, (int, float)):
            return _number(value, data_type)
        if isinstance(value, dict):
            return self._record(value, self._other)
        if isinstance(value, list):
            return [self._value(item, "double") for item in value]
        return value


def _typed(text: str, data_type: TDataType) -> Any:
    """Make of a text what its column holds; what it can't hold goes to where dlt would put it."""
    if data_type == "timestamp":
        return _time(text) or {"v_text": text}
    if data_type == "bigint" and len(text) > LONGEST_BIGINT:
        return {"v_text": text}
    return text


def _number(value: Any, data_type: TDataType) -> Any:
    """Make of a number what its column holds.

    JSON has one kind of number: 12 here and 12.5 there must not make two columns.
    """
    if data_type == "text":
        return str(value).lower()  # as JSON writes it
    if data_type == "timestamp":
        return {"v_text": str(value).lower()}
    if isinstance(value, bool):
        return value
    if data_type == "bigint":
        return round(value) if -BIGINT <= value < BIGINT else {"v_double": float(value)}
    return float(value)


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        if value.endswith("Z"):  # as the API's sample; five times as fast
            moment = datetime.fromisoformat(value[:-1])
            if moment.tzinfo is None:
                return moment.replace(tzinfo=timezone.utc)
    except ValueError:
        pass
    try:
        return ensure_datetime_in_tz(value, timezone.utc)
    except (ValueError, OverflowError, OSError, TypeError):  # of dlt's and pendulum's parsers
        return None
