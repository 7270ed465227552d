"""Figures computed from an account's jobs, and the way to ask a destination for the same."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
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


def assert_figures(
    ask: Callable[[str, str], list[Row]],
    jobs: list[Job],
    gone: Job,
    *,
    percentiles: tuple[str, ...] = ("p50_duration_seconds", "p95_duration_seconds"),
) -> None:
    """Compare each view with figures of all jobs that were listed once; `gone` is one no longer.

    `ask` selects columns from a view. Without `percentiles`, these are left out.
    """
    names = "id, duration_seconds, total_files, bytes_in, bytes_out, bytes_saved, saved_percent"
    facts = {row[0]: row[1:] for row in ask(names, "job_facts")}
    assert facts == {
        job["id"]: (seconds(job), job["total_files"], *weigh(files(job))) for job in jobs
    }
    removed = ask("id, status", "job_facts WHERE removed_at IS NOT NULL")
    assert removed == [(gone["id"], gone["status"])]

    names = "day, job_type, status, jobs, removed_jobs, failure_rate, bytes_saved"
    names = ", ".join([names, *percentiles])
    figures = {key: row[: 4 + len(percentiles)] for key, row in days(jobs, gone).items()}
    assert {row[:3]: row[3:] for row in ask(names, "daily_jobs")} == figures

    all_files = [item for job in jobs for item in files(job)]
    names = "mime_type, files, bytes_in, bytes_out, bytes_saved, saved_percent"
    formats = ask(names, "format_savings")
    assert formats == [("image/webp", len(all_files), *weigh(all_files))]

    failed = [job for job in jobs if job["status"] == "failed"]
    assert ask("id, error_message", "failures") == [
        (job["id"], job["error_message"]) for job in reversed(failed)
    ]


def days(jobs: list[Job], gone: Job) -> dict[Row, Row]:
    """Return what `daily_jobs` must have, by day, type and status."""
    groups, types = defaultdict[Row, list[Job]](list), defaultdict[Row, list[str]](list)
    for job in jobs:
        day = timestamp(job["created_at"]).date(), job["job_type"]
        groups[(*day, job["status"])].append(job)
        types[day].append(job["status"])
    expected = {}
    for key, group in groups.items():
        ended = [status for status in types[key[:2]] if status in ("completed", "failed")]
        rate = ended.count("failed") / len(ended) if ended else None
        times = [took for took in map(seconds, group) if took is not None]
        saved = weigh([item for job in group for item in files(job)])[2]
        middle = median(times) if times else None
        expected[key] = (len(group), group.count(gone), rate, saved, middle, p95(times))
    return expected


def p95(values: list[float]) -> Any:
    """Return the 95th percentile, interpolated, None of no values."""
    if len(values) < 2:
        return values[0] if values else None
    return pytest.approx(quantiles(values, n=20, method="inclusive")[-1])
