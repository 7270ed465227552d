"""The jobs of a Convertly account in Airflow: hourly, verified weekly, a history on many workers.

Copy this file into the DAGs folder; `convertly-source` must be installed where tasks run. The key
is the password of the connection `convertly` (whose host, if it has one, is the API's address),
else the variable `convertly_api_key`, else `CONVERTLY_API_KEY`. What dlt needs beside it, as
`DESTINATION__POSTGRES__CREDENTIALS`, comes from the environment of the tasks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from airflow.sdk import Asset, AssetAlias, BaseHook, Param, Variable, dag, task
    from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

    BACKOFF: float = 2.0  # Airflow 3 takes a factor: True is 1, so that waits would not grow
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset
    from airflow.datasets import DatasetAlias as AssetAlias
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowFailException, AirflowNotFoundException
    from airflow.hooks.base import BaseHook
    from airflow.models import Variable
    from airflow.models.param import Param

    BACKOFF = True

if TYPE_CHECKING:
    from convertly_source.loading import Target
    from convertly_source.loading.backfill import SourceSettings

CONNECTIONS = 4  # requests that a task may have under way, and the slots it takes in the pool
POOL = os.environ.get("CONVERTLY_POOL", "default_pool")
WINDOWS_AT_ONCE = 8
MOST_WINDOWS = 1024  # Airflow's max_map_length
JOBS = AssetAlias("convertly_jobs")  # schedule a DAG on it to run after new rows
OPTIONAL = ["null", "string"]
TARGET = {
    "destination": Param("duckdb", type="string", description="a destination of dlt"),
    "dataset": Param("convertly_data", type="string", description="a schema"),
}
DEFAULTS = {
    "pool": POOL,
    "pool_slots": CONNECTIONS,
    "retries": 6,  # of what can heal, after 1, 2, 4, ... minutes
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": BACKOFF,
    "max_retry_delay": timedelta(hours=1),
    "execution_timeout": timedelta(hours=6),  # of one try; the next one keeps what was loaded
}


@dag(
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params={
        **TARGET,
        "start_date": Param(None, type=OPTIONAL, description="oldest created_at"),
        "trust_account": Param(
            default=False, type="boolean", description="load although no known job is listed"
        ),
        "models": Param(default=False, type="boolean", description="create the views for BI"),
    },
    doc_md=__doc__,
    tags=["convertly"],
)
def convertly_jobs() -> None:
    """Load what has changed since the last run, whatever interval a run is for."""

    # Runs of a backfill are not held to max_active_runs.
    @task(max_active_tis_per_dag=1, outlets=[JOBS])
    def load_jobs(params: Any = None, outlet_events: Any = None) -> dict[str, int]:
        with convertly(params) as (target, settings):
            from convertly_source import convertly_source
            from convertly_source.loading import load_account

            settings |= {name: params[name] for name in ("start_date", "trust_account")}
            source = convertly_source(**settings)
            rows = dict(load_account(target, source, views=params["models"]).rows)
            if any(rows[table] for table in rows if table != "runs"):
                asset = Asset(f"convertly/{target.destination}/{target.dataset}")
                outlet_events[JOBS].add(asset, extra=rows)
            return rows

    load_jobs()


@dag(
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=True,  # before the first load there is nothing to compare
    max_active_runs=1,
    default_args=DEFAULTS,
    params={
        **TARGET,
        "read_all": Param(default=False, type="boolean", description="read and compare every job"),
    },
    doc_md=__doc__,
    tags=["convertly"],
)
def convertly_verify() -> None:
    """Load what no hourly run sees: jobs that were deleted or changed after they had ended."""

    @task
    def verify(params: Any = None) -> dict[str, int]:
        with convertly(params) as (target, settings):
            from convertly_source import convertly_source
            from convertly_source.loading import verify_account

            source = convertly_source(**settings)
            return verify_account(target, source, read_all=params["read_all"])._asdict()

    verify()


@dag(
    schedule=None,
    max_active_runs=1,
    default_args=DEFAULTS,
    params={
        **TARGET,
        "start": Param(None, type=OPTIONAL, description="else the day of the oldest job"),
        "end": Param(None, type=OPTIONAL, description="not included; else behind the newest job"),
        "days_per_window": Param(7, type="number"),
    },
    doc_md=__doc__,
    tags=["convertly"],
)
def convertly_backfill() -> None:
    """Load a history, one task per window; at once where the destination takes several writers."""

    @task
    def plan(params: Any = None) -> list[list[str]]:
        with convertly(params) as (target, settings):
            from convertly_source.errors import SettingsError
            from convertly_source.loading.backfill import plan_windows

            bounds = params["start"], params["end"]
            windows = plan_windows(target, settings, *bounds, params["days_per_window"])
            if len(windows) > MOST_WINDOWS:
                raise SettingsError(
                    f"These are {len(windows):,} windows.", "Set a higher days_per_window."
                )
            return [[timestamp.isoformat() for timestamp in window] for window in windows]

    @task
    def choose(windows: list[list[str]], *, is_alone: bool, params: Any = None) -> list[list[str]]:
        """Return the windows to the tasks that run at once, or to those that run one by one."""
        from convertly_source.loading.backfill import ONE_WRITER

        return windows if (params["destination"] in ONE_WRITER) == is_alone else []

    @task(map_index_template="{{ task.op_kwargs['window'] | join(' to ') }}")
    def load(window: list[str], params: Any = None) -> dict[str, int]:
        with convertly(params) as (target, settings):
            from convertly_source.loading.backfill import Window, load_window

            return dict(load_window(Window.parse(*window), target, settings))

    @task(trigger_rule="none_failed")
    def compare(windows: list[list[str]], params: Any = None) -> dict[str, Any]:
        """Fail when jobs are missing; else return what an ordinary run is to start with."""
        with convertly(params) as (target, settings):
            from convertly_source.loading.backfill import Window, check

            whole = Window.parse(windows[0][0], windows[-1][1])
            result = check(whole, target, settings)
            return {"jobs": result.jobs, "start_date": result.start_date.isoformat()}

    windows = plan()
    loaded = [
        load.override(task_id=f"load_{way}", max_active_tis_per_dag=most).expand(
            window=choose.override(task_id=way)(windows, is_alone=most == 1)
        )
        for way, most in (("at_once", WINDOWS_AT_ONCE), ("one_by_one", 1))
    ]
    loaded >> compare(windows)


@contextmanager
def convertly(params: dict[str, Any]) -> "Iterator[tuple[Target, SourceSettings]]":
    """Yield where to load to, and the source's settings; fail at once if retrying can't help."""
    os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")  # 472 look-ups per task
    from dlt.common.exceptions import TerminalException

    from convertly_source.errors import explained
    from convertly_source.loading import Target
    from convertly_source.loading.settings import configure

    configure(params["destination"])
    try:
        refuse_relative_file(params["destination"])
        settings = {"max_connections": CONNECTIONS, **access()}
        yield Target(params["destination"], params["dataset"]), settings
    except Exception as error:
        known = explained(error)
        if not known:
            raise
        kind = AirflowFailException if isinstance(known, TerminalException) else RuntimeError
        raise kind(f"{known} {known.remedy}") from None


def access() -> dict[str, str]:
    """Return the key from a connection or a variable; else dlt and the source look for it."""
    try:
        connection = BaseHook.get_connection("convertly")
    except AirflowNotFoundException:
        key = Variable.get("convertly_api_key", None)
        return {"api_key": key} if key else {}
    found = {"api_key": connection.password, "base_url": connection.host}
    return {name: value for name, value in found.items() if value}


def refuse_relative_file(destination: str) -> None:
    """Raise `SettingsError` for a DuckDB file that each task would look for in another folder."""
    import dlt

    from convertly_source.errors import SettingsError

    if destination == "duckdb":
        names = "destination.duckdb.credentials.database", "destination.duckdb.credentials"
        file = next(filter(None, map(dlt.secrets.get, names)), "")
        if not Path(str(file).removeprefix("duckdb:///")).is_absolute():
            raise SettingsError(
                "Each task would make a DuckDB file of its own.",
                "Set DESTINATION__DUCKDB__CREDENTIALS to an absolute path, where tasks run.",
            )


convertly_jobs()
convertly_verify()
convertly_backfill()
