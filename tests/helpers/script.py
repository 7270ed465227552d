"""The script `pipelines/load_jobs.py`, run as a person runs it, and what it leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "load_jobs.py"
Done = subprocess.CompletedProcess[str]


def command(*arguments: str, **environment: str) -> dict[str, Any]:
    """Say how to start the script; the environment is that of the test, with `environment`."""
    return {
        "args": [sys.executable, str(SCRIPT), *arguments],
        "env": os.environ | environment,
        "stdin": subprocess.DEVNULL,
        "text": True,
    }


def load(*arguments: str, **environment: str) -> Done:
    """Run the script to its end."""
    return subprocess.run(**command(*arguments, **environment), capture_output=True, check=False)


def load_from(api: DemoAPI, *arguments: str, **environment: str) -> Done:
    """Run the script to its end, with the account of `api`."""
    key = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    return load(*arguments, **key | environment)


def query(sql: str, path: str = "convertly.duckdb") -> list[tuple[Any, ...]]:
    """Ask the DuckDB file that the script wrote."""
    with duckdb.connect(path) as connection:
        return connection.execute(sql).fetchall()


def content(dataset: str = "convertly_data") -> list[tuple[Any, ...]]:
    """Return what is loaded of each job."""
    return query(f"SELECT id, status FROM {dataset}.jobs ORDER BY id")


def listed(account: DemoAccount) -> list[tuple[Any, ...]]:
    """Return what must be loaded of each job."""
    return sorted((job["id"], job["status"]) for job in account.jobs)


def assert_refused(done: Done, code: int, *words: str) -> None:
    """Check the exit code, and that a person sees two lines and no traceback, after the log."""
    lines = [
        line
        for line in done.stderr.splitlines()
        if not line.endswith("jobs read") and "; trying again in " not in line
    ]
    assert (done.returncode, len(lines)) == (code, 2), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def kill(process: subprocess.Popen[str]) -> None:
    """End it as the system does when memory is short."""
    process.send_signal(signal.SIGKILL)
    process.wait()
