"""One job as rows: the same columns whatever shape its `results` have."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dlt.common.data_types.typing import TDataType
from dlt.common.json import json
from dlt.common.utils import digest128

from convertly_source.api.client import Job
from convertly_source.reading.job import ListedJob, RemovedJob, parse_datetime
from convertly_source.reading.run import Changes
from convertly_source.tables.redaction import redacted_text, without_credentials
from convertly_source.tables.schema import JOB_TYPES, RESULT_TYPES

BIGINT = 2**63  # the first integer that is too large
LONGEST_BIGINT = 17  # digits that are sure to fit, decimal or hexadecimal


def fingerprint(job: Job) -> str:
    """Return a hash of a job's content. It ignores the query strings of links, which change."""
    return digest128(json.dumps(without_credentials(job), sort_keys=True))


def rejected_record(job: ListedJob) -> dict[str, Any]:
    """Return the row of `rejected_jobs` for a job that can't be stored."""
    missing = [name for name in ("id", "created_at") if not getattr(job, name)]
    return {
        "fingerprint": fingerprint(job.raw),
        "reason": f"no usable {' and no usable '.join(missing)}",
        "raw": without_credentials(job.raw),
        "noticed_at": datetime.now(timezone.utc),
    }


def removed_record(job: RemovedJob) -> dict[str, Any]:
    """Return the row of `removed_jobs`."""
    return {**job._asdict(), "noticed_at": datetime.now(timezone.utc)}


def split_results(results: Any) -> tuple[list[Any], dict[str, Any] | None]:
    """Return the items of `results` in order, and its other fields, None if there are none."""
    if not isinstance(results, dict):
        return _items(results), None
    for key in ("files", "file"):
        if key in results and isinstance(results[key], (list, dict, type(None))):
            info = {name: value for name, value in results.items() if name != key}
            return _items(results[key]), info or None
    return _items(results), None


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None or value == {} else [value]


def _as_object(item: Any) -> dict[str, Any]:
    if isinstance(item, list):
        return {"list": item}  # the column in which dlt itself puts a list within a list
    return item if isinstance(item, dict) else {"value": item}


class _Columns(dict[str, tuple[str, TDataType]]):
    """The column name and type of each key, computed once per key."""

    def __init__(self, name_of: Callable[[str], str], types: Mapping[str, TDataType]) -> None:
        super().__init__()
        self._name_of = name_of
        self._types = types

    def __missing__(self, key: str) -> tuple[str, TDataType]:
        name = self._name_of(key)
        self[key] = name, self._types.get(name, "double")
        return self[key]


class TableRows(NamedTuple):
    """Rows of one table."""

    table: str
    rows: list[dict[str, Any]]


class RecordMapper:
    """Maps jobs to rows: keys to column names, values to the type of their column.

    `naming` returns the column name for a key, as dlt's naming conventions do. Links lose their
    query strings, which are credentials, unless `keep_signed_urls`.
    """

    def __init__(self, naming: Callable[[str], str], *, keep_signed_urls: bool = False) -> None:
        self._naming = naming
        self._keep_links = keep_signed_urls
        self._job = _Columns(self._name, JOB_TYPES)
        self._result = _Columns(self._name, RESULT_TYPES)
        self._other = _Columns(self._name, {})

    def tables(self, changes: Changes) -> Iterator[TableRows]:
        """Yield the rows of each table for what a run has found."""
        yield TableRows("rejected_jobs", [rejected_record(job) for job in changes.rejected])
        yield TableRows("jobs", [self.job_record(job) for job in changes.jobs])
        yield TableRows("removed_jobs", [removed_record(job) for job in changes.removed])

    def job_record(self, job: ListedJob) -> dict[str, Any]:
        """Return the row of `jobs`, with the rows of `jobs__results` as the list `results`.

        `results` and `results_info` stay empty until the job has ended.
        """
        items, info = split_results(job.raw.get("results") if job.is_final else None)
        record = self._record({**job.raw, "results": None, "created_at": None}, self._job)
        results = [self._record(_as_object(item), self._result) for item in items]
        for result in results:
            result["job_id"] = job.id
        record |= {"id": job.id, "created_at": job.created_at, "results": results}
        record["results_info"] = info and without_credentials(info, keep_links=self._keep_links)
        return record

    def _name(self, key: str) -> str:
        text = redacted_text(key, keep_links=self._keep_links)
        name = self._naming(text) if text.strip() else "x"
        return name.removeprefix("_") if name.startswith("_dlt_") else name

    def _record(self, value: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
        """Return an object by column; of keys for one column, the first that is not null counts."""
        record: dict[str, Any] = {}
        for key, item in value.items():
            if item is not None:
                name, data_type = columns[key]
                if name not in record:
                    record[name] = self._value(item, data_type)
        return record

    def _value(self, value: Any, data_type: TDataType) -> Any:
        if isinstance(value, str):
            return _typed(redacted_text(value, keep_links=self._keep_links), data_type)
        if isinstance(value, (int, float)):
            return _number(value, data_type)
        if isinstance(value, dict):
            return self._record(value, self._other)
        if isinstance(value, list):
            return [self._value(item, "double") for item in value]
        return value


def _typed(text: str, data_type: TDataType) -> Any:
    """Return a text in its column's type, or for dlt's variant column if it does not fit."""
    if data_type == "timestamp":
        return parse_datetime(text) or {"v_text": text}
    if data_type == "bigint" and len(text) > LONGEST_BIGINT:
        return {"v_text": text}
    return text


def _number(value: Any, data_type: TDataType) -> Any:
    """Return a number or boolean in its column's type, or for dlt's variant column.

    JSON has one kind of number, so 12 and 12.5 must not end in two columns.
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
