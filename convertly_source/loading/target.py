"""Where the tables are: the pipeline, its destination, and the stored schema."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import DestinationUndefinedEntity, UnknownDestinationModule
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.common.runtime.collector_base import Collector
from dlt.common.schema import Schema
from dlt.common.storages import LoadStorage, LoadStorageConfiguration
from dlt.destinations.sql_client import SqlClientBase

from convertly_source.errors import ConvertlyError, SettingsError, destination_error

NAME = "convertly"  # of the pipeline
SCHEMA = "convertly"
KEPT_STATES = 20  # of those that are stored, the last ones
KEPT_LOADS = 20  # of those that dlt's commands show, the last ones
_open_clients = WeakKeyDictionary[dlt.Pipeline, SqlClientBase[Any]]()


class Target(NamedTuple):
    """A dataset in a destination of dlt, whose settings and credentials dlt knows."""

    destination: str = "duckdb"
    dataset: str = "convertly_data"

    def pipeline(
        self,
        folder: str | Path = "",
        progress: Collector = NULL_COLLECTOR,
        **destination_options: Any,
    ) -> dlt.Pipeline:
        """Return a pipeline into this target that works in `folder`, else in dlt's own folder.

        What dlt's configuration has for other pipelines is not for it, where it would lose rows.
        Raise `SettingsError` when dlt has no such destination.
        """
        try:
            destination = Destination.from_reference(self.destination, **destination_options)
        except UnknownDestinationModule as error:
            raise SettingsError(
                f"Invalid destination {self.destination!r}.",
                "Use one of https://dlthub.com/docs/dlt-ecosystem/destinations.",
                setting="destination",
            ) from error
        pipeline = dlt.pipeline(
            NAME,
            str(folder),
            destination=destination,
            dataset_name=self.dataset,
            progress=progress,
            dev_mode=False,
        )
        pipeline.config.restore_from_destination = True
        pipeline.refresh = None  # each chunk would drop those before it
        dlt.config[f"{NAME}.load.raise_on_failed_jobs"] = True  # an argument would not win
        return pipeline

    def place(self) -> str:
        """Return where the tables are, in words, without credentials."""
        with TemporaryDirectory() as folder:
            return describe(self.pipeline(folder))

    def fresh_pipeline(self, folder: Path, progress: Collector) -> dlt.Pipeline:
        """Return a pipeline that works in `folder`, without what an earlier load has left there.

        What that one had not committed is read again, which is safe since every table is merged.
        The packages of the last loads stay, which dlt's own commands show.
        """
        working, kept = folder / NAME, folder / "loaded"
        if (working / "load" / "loaded").is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            (working / "load" / "loaded").rename(kept)
        shutil.rmtree(working, ignore_errors=True)
        pipeline = self.pipeline(folder, progress)
        if kept.is_dir():
            _keep_packages(kept, working)
        return pipeline


def _keep_packages(kept: Path, working: Path) -> None:
    """Put the last packages that were loaded where dlt looks for them."""
    storage = LoadStorage(True, [], LoadStorageConfiguration(str(working / "load")))  # noqa: FBT003
    loaded = Path(storage.loaded_packages.storage.storage_path)
    for package in sorted(kept.iterdir())[-KEPT_LOADS:]:
        package.rename(loaded / package.name)
    shutil.rmtree(kept)


def refuse_ambiguous_name(pipeline: dlt.Pipeline) -> None:
    """Raise `SettingsError` if DuckDB couldn't tell a dataset from the file it is in.

    It names the file by what is before the first dot, in any case.
    """
    client: Any = pipeline.destination_client()
    if not pipeline.destination.destination_type.endswith(".duckdb"):
        return
    file = Path(client.config.credentials.database).name.lstrip(".").partition(".")[0]
    datasets = {
        "dataset": client.sql_client.dataset_name,
        "staging dataset": client.sql_client.staging_dataset_name,
    }
    for kind, name in datasets.items():
        if name.lower() == file.lower():
            raise SettingsError(
                f"The {kind} and the DuckDB file are both named {name}.",
                "Use another name for one of them.",
            )


def refuse_shared_staging(pipeline: dlt.Pipeline) -> None:
    """Raise `SettingsError` if one load would empty the dataset of another, as its staging dataset.

    Only a dataset that is loaded to has a table `_dlt_loads`, its staging dataset has none.
    """
    if is_lake(pipeline):
        return
    client: Any = pipeline.destination_client()
    dataset, staging = client.sql_client.dataset_name, client.sql_client.staging_dataset_name
    if _is_loaded_to(pipeline, staging):
        raise SettingsError(
            f"The dataset {staging} is another load's, and this load would use it as its staging "
            "dataset.",
            "Choose another dataset.",
        )
    before, _, after = client.config.staging_dataset_name_layout.partition("%s")
    other = dataset.removeprefix(before).removesuffix(after)
    is_staging = other != dataset == f"{before}{other}{after}"
    if is_staging and _is_loaded_to(pipeline, other) and not _is_loaded_to(pipeline, dataset):
        raise SettingsError(
            f"The dataset {dataset} is the staging dataset of loads into {other}.",
            "Choose another dataset.",
        )


def _is_loaded_to(pipeline: dlt.Pipeline, dataset: str) -> bool:
    """Return whether a dataset of the same destination holds what a load has completed."""
    with (
        open_client(pipeline) as client,
        client.with_alternative_dataset_name(dataset),
        suppress(DestinationUndefinedEntity),
    ):
        table = client.make_qualified_table_name("_dlt_loads")
        client.execute_sql(f"SELECT 1 FROM {table} WHERE 1 = 0")  # noqa: S608
        return True
    return False


def refuse_naming(schema: Schema) -> None:
    """Raise `SettingsError` if the tables would have other names than the documented ones."""
    if schema.naming.make_path("jobs", "results") != "jobs__results":
        raise SettingsError(
            f"The naming convention {schema.naming.name()} gives the tables other names.",
            "Leave SCHEMA__NAMING at snake_case.",
        )


def name_in_sql(pipeline: dlt.Pipeline) -> str:
    """Return the name of the dataset in SQL: quoted, unless it is the default, which is short."""
    if pipeline.dataset_name == Target().dataset:
        return pipeline.dataset_name
    with pipeline.sql_client() as client:
        return client.fully_qualified_dataset_name()


def working_folder(place: str) -> Path:
    """Return the folder in which loads into a place work, one at a time."""
    digest = hashlib.sha256(place.encode()).hexdigest()[:12]
    return Path(get_dlt_pipelines_dir()) / f"{NAME}-{digest}"


@contextmanager
def using(target: Target) -> Iterator[None]:
    """Raise `ConvertlyError` for any other error while a destination is reached.

    Each driver has errors of its own for a server that is away, a wrong password or database.
    """
    try:
        yield
    except (ConvertlyError, ConfigurationException, MissingDependencyException):
        raise
    except Exception as error:
        raise destination_error(error, target.destination) from error


@contextmanager
def kept_open(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keep DuckDB's file open within the block: opening it takes 30 ms each time."""
    if not pipeline.destination.destination_type.endswith(".duckdb"):
        yield
        return
    with pipeline.sql_client() as client:
        _open_clients[pipeline] = client
        try:
            yield
        finally:
            del _open_clients[pipeline]


@contextmanager
def open_client(pipeline: dlt.Pipeline) -> Iterator[SqlClientBase[Any]]:
    """Yield the client that `kept_open` holds, else open one for the block."""
    if client := _open_clients.get(pipeline):
        yield client
        return
    with pipeline.sql_client() as client:
        yield client


def describe(pipeline: dlt.Pipeline) -> str:
    """Return where the tables of a pipeline are, in words, without credentials.

    Raise `SettingsError` if they would be in its working folder, which is deleted.
    """
    place = str(pipeline.destination_client().config)
    if pipeline.working_dir in place:
        raise SettingsError(
            "The destination would be in a temporary folder, another one in each run.",
            "Name a file or folder of your own instead of :pipeline:.",
        )
    return f"{pipeline.dataset_name} of {place}"


def restore(pipeline: dlt.Pipeline) -> None:
    """Take state and schema from the destination."""
    pipeline.sync_destination()
    if not (pipeline.default_schema_name or is_lake(pipeline)):
        restore_schema(pipeline)  # windows leave a schema without a state


def commit_state(pipeline: dlt.Pipeline, change: Callable[[Any], object]) -> None:
    """Load nothing but a change of the state."""
    with pipeline.managed_state(extract_state=True) as state:
        change(state)
    pipeline.normalize()
    pipeline.load()


def trim_state(pipeline: dlt.Pipeline) -> None:
    """Delete all but the last stored states: each load that changes the state stores all of it."""
    with open_client(pipeline) as client:
        table = client.make_qualified_table_name(pipeline.default_schema.state_table_name)
        of_pipeline = f"FROM {table} WHERE pipeline_name = %s"
        sql = f"SELECT _dlt_load_id {of_pipeline} ORDER BY _dlt_load_id DESC"
        rows = client.execute_sql(sql, pipeline.pipeline_name) or []
        if len(rows) > KEPT_STATES:
            oldest = rows[KEPT_STATES - 1][0]
            sql = f"DELETE {of_pipeline} AND _dlt_load_id < %s"
            client.execute_sql(sql, pipeline.pipeline_name, oldest)


def is_lake(pipeline: dlt.Pipeline) -> bool:
    """Return whether the destination holds files, which can't be asked or changed by SQL."""
    return pipeline.destination.destination_type.endswith(".filesystem")


def restore_schema(pipeline: dlt.Pipeline) -> bool:
    """Take all schemas that are stored, as one; return whether there are any.

    Windows that are loaded at the same time store a schema each. A column keeps the type that it
    had first.
    """
    schemas = list[Schema]()
    client: Any = pipeline.destination_client()
    with client, suppress(DestinationUndefinedEntity):
        table = client.sql_client.make_qualified_table_name("_dlt_version")
        sql = f"SELECT version_hash FROM {table} WHERE schema_name = %s ORDER BY inserted_at"  # noqa: S608
        for (key,) in client.sql_client.execute_sql(sql, SCHEMA) or ():
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


def select_value(pipeline: dlt.Pipeline, sql: str, table: str, *values: Any) -> Any:
    """Return the one value of a query, in which `{}` is the table; None if there is no table."""
    with open_client(pipeline) as client, suppress(DestinationUndefinedEntity):
        rows = client.execute_sql(sql.format(client.make_qualified_table_name(table)), *values)
        return rows[0][0] if rows else None


def count_rows(pipeline: dlt.Pipeline, table: str, condition: str = "1 = 1", *values: Any) -> int:
    """Return how many rows of a table meet a condition, none if there is no such table."""
    sql = f"SELECT count(*) FROM {{}} WHERE {condition}"  # noqa: S608 - conditions of this package
    return select_value(pipeline, sql, table, *values) or 0


def stored_tables(pipeline: dlt.Pipeline) -> set[str]:
    """Return the tables that were made, by the stored schema."""
    if not pipeline.default_schema_name:
        return set()
    return set(pipeline.default_schema.data_table_names(seen_data_only=True))


def repair_tables(pipeline: dlt.Pipeline) -> list[str]:
    """Make tables and columns again that were dropped by hand; return the names of data tables."""
    tables = stored_tables(pipeline)
    own_tables = pipeline.default_schema.dlt_table_names()
    client: Any = pipeline.destination_client()
    with client:
        made = client.update_stored_schema(only_tables=[*tables, *own_tables], force=True) or ()
        with client.with_staging_dataset():
            if client.is_storage_initialized():
                version_table = pipeline.default_schema.version_table_name
                client.update_stored_schema(only_tables=[*tables, version_table], force=True)
    return sorted(tables & set(made))


def drop_staging(pipeline: dlt.Pipeline) -> None:
    """Drop the staging dataset, if there is one."""
    client: Any = pipeline.destination_client()
    with client, client.with_staging_dataset():
        if client.is_storage_initialized():
            (client if is_lake(pipeline) else client.sql_client).drop_dataset()
