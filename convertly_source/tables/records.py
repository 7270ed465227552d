"""One job as rows: the same columns whatever shape its `results` have."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dlt.common import logger
from dlt.common.data_types.typing import TDataType
from dlt.common.json import json
from dlt.common.schema.typing import TColumnSchema
from dlt.common.utils import digest128

from convertly_source.reading.job import ListedJob, RemovedJob
from convertly_source.reading.run import Changes
from convertly_source.tables.columns import TableColumns
from convertly_source.tables.redaction import redacted_text
from convertly_source.tables.schema import JOB_TYPES, RESULT_TYPES, nullable_column
from convertly_source.tables.values import free_key, storable, storable_json

Fields = Iterable[tuple[str, Any]]

MAPPED_FIELDS = ("id", "created_at", "results")  # of a job; the others become columns as they are
FIRST = datetime(1970, 1, 1, tzinfo=timezone.utc)  # of a job that is older than all timestamps
FILE_FIELDS = RESULT_TYPES.keys() - {"job_id", "value"}  # of which a file has one at least


def fingerprint(job: Any) -> str:
    """Return a hash of a job's content. It ignores the query strings of links, which change."""
    return digest128(json.dumps(storable_json(job), sort_keys=True))


def rejected_record(
    job: ListedJob, created_at: datetime | None = None, error: Exception | None = None
) -> dict[str, Any]:
    """Return the row of `rejected_jobs` for a job that is not usable, or that mapping failed on.

    `created_at` stands in where it has none of its own.
    """
    raw = storable_json(job.raw)
    missing = [name for name in ("id", "created_at") if not getattr(job, name)]
    if error:
        reason = f"could not be mapped ({type(error).__name__})"
    elif isinstance(raw, dict):
        reason = f"no usable {' and no usable '.join(missing)}"
    else:
        reason = "not an object"
    return {
        "fingerprint": fingerprint(job.raw),
        "reason": reason,
        "raw": raw if isinstance(raw, dict) else {"value": raw},
        "created_at": job.created_at or (created_at and max(created_at, FIRST)),
        "status": job.status,
        "noticed_at": datetime.now(timezone.utc),
    }


def removed_record(job: RemovedJob) -> dict[str, Any]:
    """Return the row of `removed_jobs`."""
    return {**job._asdict(), "noticed_at": datetime.now(timezone.utc)}


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
        self._has_warned = False
        self.restore_columns({})

    def restore_columns(self, tables: Mapping[str, Mapping[str, TDataType]]) -> None:
        """Start with the columns that earlier runs have made, by table."""
        self.columns = {
            "jobs": TableColumns(JOB_TYPES, self._name),
            "jobs__results": TableColumns(RESULT_TYPES, self._name),
        }
        for table, columns in self.columns.items():
            columns.restore(tables.get(table, {}))

    @property
    def new_column_count(self) -> int:
        """How many columns have appeared that earlier runs have not made."""
        return sum(len(columns.new) for columns in self.columns.values())

    def new_columns(self) -> dict[str, list[TColumnSchema]]:
        """Return the columns that earlier runs have not made, by table, as hints for dlt."""
        return {
            table: [nullable_column(*column) for column in columns.new.items()]
            for table, columns in self.columns.items()
        }

    def tables(self, changes: Changes) -> Iterator[TableRows]:
        """Yield the rows of each table for what a run has found."""
        rejected = [rejected_record(job.job, job.created_at) for job in changes.rejected]
        yield TableRows("jobs", list(self._job_records(changes.jobs, rejected)))
        yield TableRows("rejected_jobs", rejected)
        yield TableRows("removed_jobs", [removed_record(job) for job in changes.removed])

    def _job_records(
        self, jobs: Iterable[ListedJob], rejected: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        for job in jobs:
            try:
                yield self.job_record(job)
            except Exception as error:  # noqa: BLE001, PERF203 - no job may stop the others
                rejected.append(rejected_record(job, error=error))

    def job_record(self, job: ListedJob) -> dict[str, Any]:
        """Return the row of `jobs`, with the rows of `jobs__results` as the list `results`.

        `results` and `results_info` stay empty until the job has ended.
        """
        items, info = self._split_results(job.raw.get("results") if job.is_final else None)
        record = {
            "id": job.id,
            "created_at": job.created_at,
            "results": [self._record("jobs__results", {"job_id": job.id}, item) for item in items],
            "results_info": info and storable_json(info, self._keep_links),
        }
        fields = dict(job.raw)
        for key in MAPPED_FIELDS:
            fields.pop(key, None)
        return self._record("jobs", record, fields.items())

    def _split_results(self, results: Any) -> tuple[list[Fields], dict[str, Any] | None]:
        """Return the items of `results` in order, and its other fields, None if there are none."""
        if not isinstance(results, dict):
            return self._items(results), None
        for key in ("files", "file"):
            if key in results and isinstance(results[key], (list, dict, type(None))):
                info = {name: value for name, value in results.items() if name != key}
                return self._items(results[key]), info or None
        return self._items(results), None

    def _items(self, value: Any) -> list[Fields]:
        if isinstance(value, dict) and self._is_map_of_files(value):
            return [[*file.items(), ("filename", name)] for name, file in _named_files(value)]
        if not isinstance(value, list):
            value = [] if value is None else [value]
        return [item.items() if isinstance(item, dict) else [("value", item)] for item in value]

    def _is_map_of_files(self, value: dict[str, Any]) -> bool:
        """Whether each value is a file, or a list of files."""
        groups = map(_as_list, value.values())
        return all(group and all(map(self._is_file, group)) for group in groups)

    def _is_file(self, item: Any) -> bool:
        columns = self.columns["jobs__results"]
        return isinstance(item, dict) and any(columns[key].name in FILE_FIELDS for key in item)

    def _name(self, key: str) -> str:
        text = redacted_text(key, self._keep_links)
        name = self._naming(text) if text.strip() else "x"
        return name.removeprefix("_") if name.startswith("_dlt_") else name

    def _record(self, table: str, record: dict[str, Any], fields: Fields) -> dict[str, Any]:
        """Add fields to a record. What has no column, or one that is taken, is an extra field."""
        columns = self.columns[table]
        extra: dict[str, Any] = {}
        for key, value in fields:
            if value is None:
                continue
            column = columns[key]
            data_type, stored = storable(
                value, column.data_type, column.is_documented, self._keep_links
            )
            if column.name in record:
                if (data_type, stored) != (column.data_type, record[column.name]):
                    extra[free_key(key, extra)] = value
            elif data_type and data_type == column.data_type:
                record[column.name] = stored
            else:
                name = columns.name_for(column, data_type) if data_type else None
                if name is None or name in record:
                    extra[free_key(key, extra)] = value
                else:
                    record[name] = stored
        if extra:
            record[columns.extra_fields()] = storable_json(extra, self._keep_links)
            self._warn(table, next(iter(extra)))
        return record

    def _warn(self, table: str, key: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            shown = redacted_text(key, keep_links=False)[:60]
            logger.warning(
                f"Some fields have no column, for example {shown!r} in {table}: they are in its"
                " JSON column extra_fields. A table gets at most 100 columns that are not"
                " documented, one for all keys with one column name, and no text above 64 KB."
            )


def _named_files(files: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, group in files.items():
        for file in _as_list(group):
            yield name, file


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
