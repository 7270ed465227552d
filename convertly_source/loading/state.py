"""What the state of a pipeline tells of the loaded account."""

from typing import Any

import dlt

from convertly_source.errors import SettingsError
from convertly_source.loading.target import SCHEMA


def loaded_host(pipeline: dlt.Pipeline) -> str | None:
    """Return the host of the account that the dataset holds, once `restore` was called."""
    host: str | None = _jobs_state(pipeline).get("host")
    return host


def has_lost_state(pipeline: dlt.Pipeline) -> bool:
    """Return whether a state was stored and is gone; a backfill stores none."""
    schema = pipeline.default_schema
    return schema.state_table_name in schema.tables and not _jobs_state(pipeline)


def knows_jobs(pipeline: dlt.Pipeline) -> bool:
    """Return whether jobs were loaded, by the state."""
    state = _run_state(pipeline)
    return any(state.get(name) for name in ("tracked", "landmarks"))


def count_has_risen(pipeline: dlt.Pipeline) -> bool:
    """Return whether the last load found more listed jobs than were loaded, by the state."""
    return bool(_run_state(pipeline).get("count_has_risen"))


def has_left_out_jobs(pipeline: dlt.Pipeline) -> bool:
    """Return whether the oldest jobs were left out by a `start_date`, by the state."""
    return bool(_run_state(pipeline).get("start"))


def note_recorded(pipeline: dlt.Pipeline, fingerprints: list[str]) -> None:
    """Set which rejected jobs the next load takes for recorded, by their fingerprints."""
    with pipeline.managed_state() as state:
        resources: Any = state.get("sources", {}).get(SCHEMA, {}).get("resources", {})
        if "rejected_jobs" in resources:
            resources["rejected_jobs"]["recorded"] = fingerprints


def landmarks(pipeline: dlt.Pipeline) -> list[Any]:
    """Return the jobs by which the loaded account is recognized."""
    found: list[Any] = _jobs_state(pipeline).get("landmarks", [])
    return found


def known_account(pipeline: dlt.Pipeline) -> dict[str, Any]:
    """Return what of the state tells the loaded account from others."""
    state = _jobs_state(pipeline)
    return {name: state[name] for name in ("host", "landmarks") if name in state}


def _run_state(pipeline: dlt.Pipeline) -> dict[str, Any]:
    """Return what the last run without a status has left to the next one."""
    state: dict[str, Any] = _jobs_state(pipeline).get("all", {})
    return state


def _jobs_state(pipeline: dlt.Pipeline) -> dict[str, Any]:
    sources: dict[str, Any] = pipeline.state.get("sources", {})
    state: dict[str, Any] = sources.get(SCHEMA, {}).get("resources", {}).get("jobs", {})
    return state


def refuse_other_account(pipeline: dlt.Pipeline, host: str) -> None:
    """Raise `SettingsError` if the dataset holds the account of another host than `host`."""
    loaded = loaded_host(pipeline) or host
    if loaded != host:
        raise SettingsError(
            f"{pipeline.dataset_name} holds the account of {loaded}, not that of {host}.",
            "Choose another dataset.",
            setting="dataset",
        )
