"""The views for BI, on DuckDB and PostgreSQL, against figures of the account."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import pytest
from helpers.figures import SQL_DATABASES, Row, files, seconds, select, timestamp, weigh
from helpers.script import load_from
from helpers.warehouse import Place, load_into

from convertly_source.api.client import Job
from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.errors import SettingsError
from convertly_source.loading import Target

Serve = Callable[..., DemoAPI]


@SQL_DATABASES
def test_the_views_have_the_figures_of_the_account(
    serve: Serve,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each view has what is computed here from the account's jobs, also when created again."""
    api = serve(DemoAccount(400))
    jobs = list(api.account.jobs)
    gone = api.account.unfinished()[0]
    for _ in range(2):
        done = load_from(api, *place.arguments, "--models", **place.settings)
        assert done.returncode == 0, done.stderr
        api.account.jobs = [job for job in jobs if job is not gone]

    def ask(columns: str, view: str) -> list[Row]:
        return select(place, tmp_path, monkeypatch, f"SELECT {columns} FROM {view}")

    names = "id, duration_seconds, total_files, bytes_in, bytes_out, bytes_saved, saved_percent"
    facts = {row[0]: row[1:] for row in ask(names, "job_facts")}
    assert facts == {
        job["id"]: (seconds(job), job["total_files"], *weigh(files(job))) for job in jobs
    }

    groups, types = defaultdict[Row, list[Job]](list), defaultdict[Row, list[str]](list)
    for job in jobs:
        day = timestamp(job["created_at"]).date(), job["job_type"]
        groups[(*day, job["status"])].append(job)
        types[day].append(job["status"])
    removed = ask("id, status", "job_facts WHERE removed_at IS NOT NULL")
    assert removed == [(gone["id"], gone["status"])]
    assert ask("sum(removed_jobs)", "daily_jobs") == [(1,)]
    names = "day, job_type, status, jobs, failure_rate, p50_duration_seconds, bytes_saved"
    days = {row[:3]: row[3:] for row in ask(names, "daily_jobs")}
    expected = {}
    for key, group in groups.items():
        ended = [status for status in types[key[:2]] if status in ("completed", "failed")]
        rate = ended.count("failed") / len(ended) if ended else None
        times = [took for took in map(seconds, group) if took is not None]
        saved = weigh([item for job in group for item in files(job)])[2]
        expected[key] = (len(group), rate, median(times) if times else None, saved)
    assert days == expected
    everything = [took for took in map(seconds, jobs) if took is not None]
    p95 = "PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY duration_seconds)"
    assert ask(p95, "job_facts") == [(quantiles(everything, n=20, method="inclusive")[-1],)]

    all_files = [item for job in jobs for item in files(job)]
    names = "mime_type, files, bytes_in, bytes_out, bytes_saved, saved_percent"
    formats = ask(names, "format_savings")
    assert formats == [("image/webp", len(all_files), *weigh(all_files))]

    failed = [job for job in jobs if job["status"] == "failed"]
    assert ask("id, error_message", "failures") == [
        (job["id"], job["error_message"]) for job in reversed(failed)
    ]


@SQL_DATABASES
def test_a_full_refresh_works_with_views(serve: Serve, place: Place) -> None:
    """The views do not keep a full refresh from dropping the tables."""
    api = serve(DemoAccount(60))
    for arguments in (["--models"], ["--full-refresh"], ["--models"]):
        done = load_from(api, *place.arguments, *arguments, **place.settings)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("destination", ["filesystem", "sqlalchemy"])
def test_views_are_refused_where_they_can_not_be_made(serve: Serve, destination: str) -> None:
    """A load into another destination with views is refused, before anything is asked."""
    api = serve(DemoAccount(5))
    with pytest.raises(SettingsError, match=f"can't be created in {destination}") as refused:
        load_into(Target(destination), api, views=True)
    assert "duckdb, motherduck, postgres" in refused.value.remedy
    assert refused.value.setting == "destination"
    assert not api.requests
