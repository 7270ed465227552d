"""The settings of dlt that suit these loads."""

from typing import Any

import dlt

DEFAULTS: dict[str, Any] = {
    "runtime.intercept_signals": False,  # dlt would swallow a Ctrl-C that comes while it loads
    "runtime.dlthub_telemetry": False,
    "load.truncate_staging_dataset": True,  # leave no second copy of a load behind
    "load.delete_completed_jobs": True,  # keep what was loaded in the destination alone
    "load.workers": 2,  # memory follows the number and the size of the files loaded at once
    "data_writer.disable_compression": True,  # of files that live for seconds
    "data_writer.file_max_items": 4000,
    "sources.convertly.data_writer.buffer_max_items": 500,  # jobs, with all of their results
}
FOR_DESTINATION: dict[str, dict[str, Any]] = {
    "bigquery": {"normalize.data_writer.disable_compression": False},  # it is sent each file
    "sqlalchemy": {"load.workers": 1},  # SQLite takes one writer, and reports each further one
    "filesystem": {"load.truncate_staging_dataset": False},  # a lake has none, dlt would make it
}


def configure(destination: str) -> None:
    """Set what suits loads into that destination, for this process, where nothing is set yet."""
    for name, value in (DEFAULTS | FOR_DESTINATION.get(destination, {})).items():
        broader = name.replace("convertly.", ""), name.replace("sources.convertly.", "")
        if all(dlt.config.get(key) is None for key in (name, *broader)):
            dlt.config[name] = value
