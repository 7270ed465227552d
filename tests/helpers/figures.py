"""Figures computed from an account's jobs, and the way to ask a destination for the same."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import pytest

from convertly_source.api.client import Job
from helpers.warehouse import Place

Row = tuple[Any, ...]
SQL_DATABASES = pytest.mark.parametrize(
    "place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)


def timestamp(text: str) -> datetime:
    """Return a timestamp of the demo account."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds(job: Job) -> float | None:
    """Return how long a job took, in seconds."""
    if not job["completed_at"]:
        return None
    return (timestamp(job["completed_at"]) - timestamp(job["created_at"])).total_seconds()


def files(job: Job) -> list[Job]:
    """Return a job's files whose sizes before and after are known."""
    results = job["results"] if job["status"] in ("completed", "failed") else None
    items = results.get("files", [results]) if isinstance(results, dict) else results or []
    return [item for item in items if isinstance(item, dict) and "finalSize" in item]


def weigh(items: list[Job]) -> Row:
    """Return the bytes of files before, after and saved, and the percent that was saved."""
    if not items:
        return None, None, None, None
    before = sum(item["originalSize"] for item in items)
    after = sum(item["finalSize"] for item in items)
    return before, after, before - after, pytest.approx(100 * (before - after) / before)


def select(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> list[Row]:
    """Query the destination."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    _, dataset, _, destination = place.arguments
    pipeline = dlt.pipeline(
        "convertly", str(tmp_path / "reader"), destination=destination, dataset_name=dataset
    )
    with pipeline.sql_client() as client:
        return [tuple(row) for row in client.execute_sql(sql) or []]
