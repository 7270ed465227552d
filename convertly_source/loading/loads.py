"""A load from its beginning to its end, as the pipelines of this project make it."""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import dlt
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import DestinationUndefinedEntity, UnknownDestinationModule
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.schema import Schema
from dlt.extract import DltSource
from dlt.pipeline.helpers import retry_schema_update
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from convertly_source.errors import SettingsError
from convertly_source.tables.schema import TABLES

PAGES_A_CHUNK = 200
SCHEMA = "convertly"
SETTINGS = {
    "runtime.intercept_signals": False,  # dlt would forget a Ctrl-C that comes while it loads
    "load.truncate_staging_dataset": True,  # leave no second copy of a load behind
    "data_writer.disable_compression": True,  # of files that live for seconds
    "data_writer.file_max_items": 4000,  # the memory of a load follows the size of its files
    "load.workers": 2,  # and how many of them are loaded at once
}


def configure(destination: str) -> None:
    """Give dlt the settings that suit loads into that destination, where there are none."""
    # SQLite takes one writer, and each further one for an error.
    workers = {"load.workers": 1} if destination == "sqlalchemy" else {}
    for name, value in (SETTINGS | workers).items():
        if dlt.config.get(name) is None:
            dlt.config[name] = value
    if destination == "filesystem":  # dlt fails to empty a staging folder that is not there
        dlt.config["load.truncate_staging_dataset"] = False


def pipeline_into(
    destination: str,
    dataset: str,
    folder: str = "",
    progress: Collector = NULL_COLLECTOR,
    **how: Any,
) -> dlt.Pipeline:
    """Make a pipeline that works in `folder`, else in dlt's own; `how` goes to its destination.

    Raises `SettingsError` when there is no such destination.
    """
    try:
        kind = Destination.from_reference(destination, **how)
    except UnknownDestinationModule as error:
        raise SettingsError(
            f"dlt has no destination {destination!r}.",
            "https://dlthub.com/docs/dlt-ecosystem/destinations names those that there are.",
        ) from error
    return dlt.pipeline(
        "convertly", folder, destination=kind, dataset_name=dataset, progress=progress
    )


def restore(pipeline: dlt.Pipeline) -> None:
    """Take state and schema from the destination; windows alone leave a schema without a state."""
    pipeline.sync_destination()
    is_lake = pipeline.destination.destination_type.endswith(".filesystem")  # it has no windows
    if not (pipeline.default_schema_name or is_lake):
        restore_schema(pipeline)


def restore_schema(pipeline: dlt.Pipeline) -> bool:
    """Take all schemas that were stored, as one; a column keeps the type that it had first.

    Windows that are loaded at the same time store a schema each. False if there are none.
    """
    schemas = list[Schema]()
    client: Any = pipeline.destination_client()
    with client, suppress(DestinationUndefinedEntity):
        table = client.sql_client.make_qualified_table_name("_dlt_version")
        sql = f"SELECT version_hash FROM {table} WHERE schema_name = %s ORDER BY inserted_at"  # noqa: S608
        for (key,) in client.sql_client.execute_sql(sql, SCHEMA):
            stored = json.loads(client.get_stored_schema_by_hash(key).schema)
            schemas.append(Schema.from_stored_schema(stored))
    if not schemas:
        return False
    *earlier, schema = schemas
    for other in reversed(earlier):
        for name, stored in other.tables.items():
            known = {key: one for key, one in stored["columns"].items() if "data_type" in one}
            schema.tables.setdefault(name, stored)["columns"].update(known)
    pipeline.schemas.save_schema(schema)
    pipeline.default_schema_name = schema.name  # type: ignore[assignment]
    return True


def loaded_host(pipeline: dlt.Pipeline) -> str | None:
    """Name the host of the account that the dataset holds, once `restore` has looked there."""
    sources: dict[str, Any] = pipeline.state.get("sources", {})
    host: str | None = sources.get("convertly", {}).get("resources", {}).get("jobs", {}).get("host")
    return host


def refuse_other_account(pipeline: dlt.Pipeline, host: str) -> None:
    """Raise `SettingsError` if the dataset holds the account of another host than `host`."""
    loaded = loaded_host(pipeline) or host
    if loaded != host:
        raise SettingsError(
            f"{pipeline.dataset_name} holds the account of {loaded}, not that of {host}.",
            "Choose another dataset.",
        )


def load_in_chunks(pipeline: dlt.Pipeline, source: DltSource) -> Counter[str]:
    """Load all that the source has to give, so many pages at a time; count the rows by table."""
    jobs = source.resources["jobs"].add_limit(PAGES_A_CHUNK)
    rows = Counter(dict.fromkeys(TABLES, 0))
    while True:
        pipeline.extract(source)
        counts = pipeline.normalize().row_counts
        rows.update({table: counts[table] for table in counts if not table.startswith("_dlt")})
        _load(pipeline)
        if jobs.custom_metrics["is_complete"]:
            return rows


@retry(  # another load may add the same table or column at the same time
    retry=retry_if_exception(retry_schema_update()),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 2),
    reraise=True,
)
def _load(pipeline: dlt.Pipeline) -> None:
    pipeline.load()
