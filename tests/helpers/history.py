"""A history that was loaded in windows, into dataset `history`."""

from collections.abc import Callable
from typing import Any

from convertly_source.demo import DemoAccount
from helpers.model import summary

Ask = Callable[[str], list[tuple[Any, ...]]]


def assert_equal(ask: Ask, account: DemoAccount, dataset: str = "history") -> None:
    """Compare all jobs, and all of their results, with the account."""
    results: dict[str, list[Any]] = {}
    for job_id, *item in ask(
        f"SELECT job_id, filename, value FROM {dataset}.jobs__results"
        " ORDER BY job_id, _dlt_list_idx"
    ):
        results.setdefault(job_id, []).append(tuple(item))
    loaded = [
        (*row, results.get(row[0], []))
        for row in ask(
            "SELECT id, status, progress, completed_files, error_message"
            f" FROM {dataset}.jobs ORDER BY id"
        )
    ]
    usable = [(job["id"], summary(job)) for job in account.jobs if job["id"]]
    assert loaded == sorted((key, *fields[:4], fields[-1]) for key, fields in usable)


def schemas(ask: Ask) -> list[str]:
    """List the datasets that the history has left."""
    names = ask("SELECT schema_name FROM information_schema.schemata ORDER BY 1")
    return [name for (name,) in names if name.startswith("history")]
