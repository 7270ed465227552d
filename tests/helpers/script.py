"""The command line: run in this process, or in one of its own; and what it leaves."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.pipeline import PipelineContext

from convertly_source.cli import main
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SCRIPT = ROOT / "pipelines" / "load_jobs.py"
HOLD = "import duckdb, sys; it = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
Done = subprocess.CompletedProcess[str]


def run(*arguments: str, **environment: str) -> Done:
    """Run the command line in this process, as in a new one; `environment` adds to the test's."""
    output, errors = StringIO(), StringIO()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with (
            patch.dict(os.environ, environment),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            restart_dlt()
            code = main(arguments)
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
        restart_dlt()
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def restart_dlt() -> None:
    """Let dlt read its configuration and find the standard error again, without a pipeline."""
    log = logging.getLogger("dlt")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
    Container()[PipelineContext].deactivate()
    Container()[PluggableRunContext].reload_providers()


def load(*arguments: str, **environment: str) -> Done:
    """Run `convertly-source load` in this process."""
    return run("load", *arguments, **environment)


def access(api: DemoAPI) -> dict[str, str]:
    """Return the environment that has the key and the address of `api`."""
    return {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}


def load_from(api: DemoAPI, *arguments: str, **environment: str) -> Done:
    """Run `convertly-source load` in this process, with the account of `api`."""
    return load(*arguments, **access(api) | environment)


def backfill(api: DemoAPI, *arguments: str, **environment: str) -> Done:
    """Run `convertly-source backfill` in this process, with the account of `api`."""
    return run("backfill", *arguments, **access(api) | environment)


def started(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "convertly_source", *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_apart(*arguments: str, **environment: str) -> Done:
    """Run the command line in a process of its own."""
    process = started(*arguments, **environment)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def kill(process: "subprocess.Popen[str]") -> None:
    """End a process as the system does when memory is short."""
    process.kill()
    process.communicate()  # it closes the pipes


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a DuckDB file open in another process, as a reader of it does."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"held\n"
            yield
        finally:
            process.kill()


def query(sql: str, path: str = "convertly.duckdb") -> list[tuple[Any, ...]]:
    """Query the DuckDB file that a load wrote."""
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
