"""The questions of `pipelines/examples.sql`, on DuckDB and PostgreSQL, against the account."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
from helpers.figures import SQL_DATABASES, Row, files, seconds, select, timestamp, weigh
from helpers.model import summary
from helpers.script import SCRIPT, load_from
from helpers.warehouse import Place

from convertly_source.api.client import Job
from convertly_source.demo import DemoAccount, DemoAPI

Serve = Callable[..., DemoAPI]
TEXT = (SCRIPT.parent / "examples.sql").read_text()


def questions() -> list[tuple[str, str]]:
    """Split the file into questions and their queries."""
    found = re.findall(r"^-- \d+\. (.*\?).*\n(?:--.*\n)*([^;]+);", TEXT, re.MULTILINE)
    assert len(found) == len(re.findall(r";", TEXT)) == 10
    return found


def until_now(account: DemoAccount) -> list[Job]:
    """Move jobs in time, so that the last one is half an hour old, and let some take hours."""
    last = timestamp(account.jobs[-1]["created_at"])
    shift = datetime.now(timezone.utc) - timedelta(minutes=30) - last
    for number, job in enumerate(account.jobs):
        job["created_at"] = (timestamp(job["created_at"]) + shift).isoformat()
        if job["completed_at"]:
            longer = timedelta(hours=9 * (number % 10 == 0), seconds=number % 97)
            job["completed_at"] = (timestamp(job["completed_at"]) + shift + longer).isoformat()
    return account.jobs


def by_type(jobs: list[Job], status: str) -> list[tuple[str, list[Job]]]:
    """Group the jobs in a status by their type."""
    groups = defaultdict[str, list[Job]](list)
    for job in jobs:
        if job["status"] == status:
            groups[job["job_type"]].append(job)
    return sorted(groups.items())


def failed_lately(jobs: list[Job]) -> list[Row]:
    """Count the failures of the last 24 hours, by message and type."""
    since = datetime.now(timezone.utc) - timedelta(hours=24)
    groups = defaultdict[Row, list[datetime]](list)
    for _, failed in by_type(jobs, "failed"):
        for job in failed:
            if timestamp(job["created_at"]) > since:
                groups[job["error_message"], job["job_type"]].append(timestamp(job["created_at"]))
    rows = [(*key, len(times), max(times)) for key, times in groups.items()]
    return sorted(rows, key=lambda row: row[2:], reverse=True)


def formats(jobs: list[Job]) -> list[Row]:
    """Weigh the files by their type, the most saved first."""
    groups = defaultdict[str, list[Job]](list)
    for job in jobs:
        for file in files(job):
            groups[file["mimeType"]].append(file)
    rows = [(kind, len(items), *weigh(items)[2:]) for kind, items in groups.items()]
    return sorted(rows, key=lambda row: -row[2])


def hanging(jobs: list[Job]) -> list[Row]:
    """List the jobs that are open for more than an hour, and for how many."""
    now = datetime.now(timezone.utc)
    waits = [(job, (now - timestamp(job["created_at"])).total_seconds() // 3600) for job in jobs]
    names = ("id", "job_type", "status", "progress")
    return [
        (*(job[name] for name in names), hours_open)
        for job, hours_open in waits
        if hours_open >= 1 and job["status"] in ("pending", "processing")
    ]


def retries(jobs: list[Job]) -> list[Row]:
    """Follow each failed job to the next one that is like it."""
    rows = []
    for kind, failed in by_type(jobs, "failed"):
        pairs = []
        for job in failed:
            later = (other for other in jobs[jobs.index(job) + 1 :] if is_like(job, other))
            nearest = next(later, None)
            if nearest and timedelta() <= wait(job, nearest) <= timedelta(hours=1):
                pairs.append((job, nearest))
        helped = sum(other["status"] == "completed" for _, other in pairs)
        if pairs:
            rows.append((kind, len(pairs), helped, sum(seconds(job) or 0 for job, _ in pairs)))
    return rows


def is_like(job: Job, other: Job) -> bool:
    """Whether a job may be the retry of another one."""
    return all(job[name] == other[name] for name in ("job_type", "total_files"))


def wait(job: Job, other: Job) -> timedelta:
    """Measure the time from the end of a job to another one."""
    return timestamp(other["created_at"]) - timestamp(job["completed_at"])


def hours(jobs: list[Job]) -> list[Row]:
    """Count what was completed by hour of the day."""
    groups = defaultdict[int, list[Job]](list)
    for _, completed in by_type(jobs, "completed"):
        for job in completed:
            groups[timestamp(job["completed_at"]).hour].append(job)
    return [
        (
            hour,
            len(group),
            sum(job["completed_files"] for job in group),
            weigh([file for job in group for file in files(job)])[0],
        )
        for hour, group in sorted(groups.items())
    ]


def durations(jobs: list[Job]) -> list[Row]:
    """Measure the completed jobs by type."""
    rows = []
    for kind, completed in by_type(jobs, "completed"):
        took = [seconds(job) or 0 for job in completed]
        p95 = quantiles(took, n=20, method="inclusive")[-1]
        rows.append(
            (kind, median(took), p95, sum(took) / sum(job["total_files"] for job in completed))
        )
    return rows


def weeks(jobs: list[Job]) -> list[Row]:
    """Divide what failed by what ended, by week."""
    ended, failed = Counter[date](), Counter[date]()
    for job in jobs:
        day = timestamp(job["created_at"]).date()
        week = day - timedelta(days=day.weekday())
        ended[week] += job["status"] in ("completed", "failed")
        failed[week] += job["status"] == "failed"
    return [(week, 100 * failed[week] / ended[week]) for week in sorted(ended) if ended[week]]


def heaviest(jobs: list[Job]) -> list[Row]:
    """List the ten jobs whose files weigh most."""
    rows = [
        (job["id"], job["job_type"], weight[0], weight[2], seconds(job))
        for job in jobs
        if (weight := weigh(files(job)))[0] is not None
    ]
    return sorted(rows, key=lambda row: -row[2])[:10]


def without_results(jobs: list[Job]) -> list[Row]:
    """Count the completed jobs that have no item in their results."""
    empty = [job for job in jobs if not summary(job)[-1]]
    return [
        (kind, len(group), min(timestamp(job["created_at"]) for job in group))
        for kind, group in by_type(empty, "completed")
    ]


def at_once(jobs: list[Job]) -> list[Row]:
    """Count the jobs under way after each start and end, and keep the most of each day."""
    changes = [(timestamp(job["created_at"]), 1) for job in jobs]
    changes += [(timestamp(job["completed_at"]), -1) for job in jobs if job["completed_at"]]
    most, under_way = Counter[date](), 0
    for time, change in sorted(changes):
        under_way += change
        most[time.date()] = max(most[time.date()], under_way)
    return sorted(most.items())


ANSWERS = {
    "What failed in the last 24 hours, and why?": failed_lately,
    "Which format saves most?": formats,
    "Which jobs hang?": hanging,
    "What do retries cost?": retries,
    "What is the throughput by hour of the day (UTC)?": hours,
    "How long do jobs take, and how long each file of them?": durations,
    "Does the failure rate rise?": weeks,
    "Which jobs are the heaviest?": heaviest,
    "Which jobs were completed, but gave no results?": without_results,
    "How many jobs were under way at once, at most, each day (UTC)?": at_once,
}


@SQL_DATABASES
def test_each_question_is_answered(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query returns what is computed here from the account's jobs, and some rows."""
    api = serve(DemoAccount(600, every=timedelta(minutes=20)))
    jobs = until_now(api.account)
    for job in jobs[-150::3]:
        job |= {"status": "failed", "error_message": "No space left.", "results": None}
        job["completed_at"] = job["completed_at"] or job["created_at"]
    for job in jobs[::5]:
        for file in files(job):
            file["mimeType"] = "image/avif"
    done = load_from(api, *place.arguments, "--models", **place.settings)
    assert done.returncode == 0, done.stderr
    asked = questions()
    assert [question for question, _ in asked] == [*ANSWERS]
    for question, query in asked:
        rows = select(place, tmp_path, monkeypatch, query)
        expected = ANSWERS[question](jobs)
        found = [tuple(map(plain, row)) for row in rows]
        assert found == [tuple(map(near, row)) for row in expected], question
        assert found


def plain(value: Any) -> Any:
    """Return a number as a float, whatever type a database has."""
    return float(value) if isinstance(value, int | float | Decimal) else value


def near(value: Any) -> Any:
    """Let a number be as exact as a float is."""
    return pytest.approx(value) if isinstance(value, int | float) else value
