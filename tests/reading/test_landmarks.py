"""The ended jobs by which an account is recognized: which they are, and who is refused."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.lists import Order, in_no_order
from helpers.script import content, listed, query
from helpers.warehouse import load_into
from hypothesis import given
from hypothesis import strategies as st

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, newest_first
from convertly_source.errors import SettingsError, explained
from convertly_source.loading import Target
from convertly_source.loading.backfill import plan_windows
from convertly_source.loading.state import landmarks
from convertly_source.loading.target import restore
from convertly_source.reading.job import ListedJob, PositionedJob
from convertly_source.reading.landmarks import MAX_LANDMARKS, Landmark, add_landmark

Serve = Callable[..., DemoAPI]
TARGET = Target()
START = datetime(2026, 5, 1, tzinfo=timezone.utc)


def ended(second: int, **fields: Any) -> PositionedJob:
    """Return a job that has ended, as it is listed."""
    created_at = START + timedelta(seconds=second)
    raw = {"id": f"job-{second}", "status": "completed", "created_at": created_at.isoformat()}
    job = ListedJob.parse(raw | fields)
    return PositionedJob(created_at, job.id or "", second, job)


@given(st.lists(st.integers(3, 120), min_size=1, max_size=400))
def test_landmarks_are_few_and_spread(sizes: list[int]) -> None:
    """However many pages are read, some are kept: the first, the youngest, and no wide gap.

    No gap is wider than three times an even one, or three pages.
    """
    kept, second = list[Landmark](), 0
    for number, size in enumerate(sizes, 1):
        jobs = [ended(second + one) for one in range(size)]
        second += size
        kept = add_landmark(kept, jobs)
        assert kept[-1] == (jobs[-2].created_at, jobs[-2].key)
        assert len(kept) == min(number, MAX_LANDMARKS)
        assert kept == sorted(set(kept))
    assert kept[0][1] == f"job-{sizes[0] - 2}"
    gaps = [(later[0] - earlier[0]).total_seconds() for earlier, later in pairwise(kept)]
    assert all(gap <= 3 * max(sum(gaps) / len(gaps), *sizes, 0) for gap in gaps)


@pytest.mark.parametrize(
    "fields", [{"status": "pending"}, {"status": "processing"}, {"id": None}, {"created_at": "?"}]
)
def test_only_ended_jobs_are_landmarks(fields: dict[str, Any]) -> None:
    """A job that may vanish, or can't be stored, is no landmark."""
    jobs = [ended(second, **fields) for second in range(5)]
    assert add_landmark([], jobs) == []


def test_jobs_of_one_time_are_no_landmarks() -> None:
    """A landmark stands alone at its time, so that the page where it begins has it."""
    alike = [ended(7)._replace(key=f"job-{number}") for number in range(9)]
    assert add_landmark([], alike) == []
    assert add_landmark([], [ended(1), *alike, ended(9)]) == []
    assert [key for _, key in add_landmark([], [ended(1), ended(2), *alike])] == ["job-2"]


def test_a_page_read_again_adds_no_second_one() -> None:
    """The landmarks stay sorted and different when jobs are read again."""
    jobs = [ended(second) for second in range(9)]
    once = add_landmark([], jobs)
    assert add_landmark(once, jobs) == once
    assert add_landmark(once, jobs[:5]) == [(jobs[3].created_at, jobs[3].key)]


def everything() -> list[Any]:
    """Return all that is stored."""
    names = query("SELECT table_schema || '.' || table_name FROM information_schema.tables")
    return [(name, query(f"FROM {name}")) for (name,) in sorted(names)]


def refused(other: DemoAPI, **settings: Any) -> SettingsError:
    """Load another account into the dataset, which is refused before anything is written."""
    before = everything()
    with pytest.raises(PipelineStepFailed) as failed:
        load_into(TARGET, other, settings)
    known = explained(failed.value)
    assert isinstance(known, SettingsError)
    assert everything() == before
    return known


@pytest.mark.slow
def test_it_costs_no_request_to_recognize_an_account(serve: Serve) -> None:
    """A quiet run takes one request; so does one that finds few new jobs."""
    api = serve(DemoAccount(600))
    for job in api.account.unfinished():
        api.account.finish(job)
    load_into(TARGET, api)
    for _ in range(2):
        api.requests.clear()
        load_into(TARGET, api)
        assert len(api.requests) == 1
        api.account.finish(api.account.create())
    assert content() != listed(api.account)


def test_another_account_is_refused(serve: Serve) -> None:
    """With a key of another account at the same host nothing is written."""
    api, other = serve(DemoAccount(150)), serve(DemoAccount(130, seed=1))
    load_into(TARGET, api)
    known = refused(other)
    assert "another account" in str(known)
    assert (known.exit_code, known.setting) == (2, "trust_account")
    refused(other, status="completed")
    refused(serve(DemoAccount(0)))
    assert load_into(TARGET, api).rows["jobs"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE {}.removed_jobs",
        "ALTER TABLE {}.jobs DROP COLUMN progress",
        "DROP TABLE {}._dlt_pipeline_state",
    ],
)
def test_a_damaged_dataset_is_not_given_away(serve: Serve, damage: str) -> None:
    """Where everything is to be read again for a damage, another account is refused as before."""
    api, other = serve(DemoAccount(150)), serve(DemoAccount(130, seed=1))
    load_into(TARGET, api)
    query(damage.format("convertly_data"))
    with pytest.raises(PipelineStepFailed) as failed:
        load_into(TARGET, other)
    assert isinstance(explained(failed.value), SettingsError)
    assert content() == listed(api.account)
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_an_account_can_be_trusted(serve: Serve) -> None:
    """With trust_account a deleted history is no other account, once; from then on it is known."""
    api = serve(DemoAccount(150))
    load_into(TARGET, api)
    last = api.account.jobs[-1]
    api.account.jobs = []
    for _ in range(20):
        api.account.finish(api.account.create())
    assert api.account.jobs[0]["created_at"] > last["created_at"]
    refused(api)
    load_into(TARGET, api, {"trust_account": True})
    assert {*listed(api.account)} <= {*content()}
    api.account.create()
    assert load_into(TARGET, api).rows["jobs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("left", [20, 3])
def test_a_purge_is_no_other_account(serve: Serve, left: int) -> None:
    """An account that has lost most of its history is recognized by what it has kept."""
    api = serve(DemoAccount(900))
    for job in api.account.unfinished():
        api.account.finish(job)
    load_into(TARGET, api)
    api.account.jobs = api.account.jobs[-left:]
    api.account.create()
    load_into(TARGET, api)
    assert {*listed(api.account)} <= {*content()}


@pytest.mark.slow
def test_an_account_without_ended_jobs_is_not_told_apart(serve: Serve) -> None:
    """Where no job has ended there is nothing to recognize it by, and nothing to refuse."""
    api = serve(DemoAccount(0))
    for _ in range(5):
        api.account.create()
    load_into(TARGET, api)
    other = serve(DemoAccount(20, seed=1))
    assert load_into(TARGET, other).new_jobs == 20


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("first", [newest_first, in_no_order])
def test_another_account_without_an_order_is_refused(serve: Serve, first: Order) -> None:
    """Nothing is loaded of a list without an order until a known job was seen in it."""
    api, other = serve(DemoAPI(DemoAccount(350), order=first)), serve(DemoAccount(330, seed=1))
    load_into(TARGET, api)
    api.order = other.order = in_no_order
    refused(other)
    refused(other, start_date="2026-05-02")
    del api.account.jobs[:100]
    load_into(TARGET, api)
    assert {*content()} >= {*listed(api.account)}


@pytest.mark.slow
def test_windows_of_another_account_are_refused(serve: Serve) -> None:
    """A backfill recognizes the account that ordinary runs have loaded."""
    api, other = serve(DemoAccount(150)), serve(DemoAccount(130, seed=1))
    load_into(TARGET, api)
    before = everything()
    for one in (other, api):
        settings = {"api_key": DEMO_KEY, "base_url": one.url}
        if one is other:
            with pytest.raises(SettingsError, match="another account"):
                plan_windows(TARGET, settings, None, None, 40)
        else:
            assert plan_windows(TARGET, settings, None, None, 40)
    assert everything() == before


@pytest.mark.slow
def test_a_window_of_another_account_is_refused(serve: Serve) -> None:
    """A load with an end date, which has no state of its own, recognizes the account too."""
    api, other = serve(DemoAccount(150)), serve(DemoAccount(130, seed=1))
    load_into(TARGET, api)
    refused(other, end_date="2026-05-03")


@pytest.mark.slow
def test_an_account_of_windows_is_recognized(serve: Serve) -> None:
    """Windows leave no state: the jobs that they have loaded tell the account from others."""
    api, other = serve(DemoAccount(150)), serve(DemoAccount(130, seed=1))
    load_into(TARGET, api, {"end_date": "2100-01-01"})
    refused(other)
    refused(other, end_date="2100-01-01")
    before = everything()
    with pytest.raises(SettingsError, match="another account"):
        plan_windows(TARGET, {"api_key": DEMO_KEY, "base_url": other.url}, None, None, 40)
    assert everything() == before
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_windows_outlive_the_jobs_of_the_first_one(serve: Serve) -> None:
    """Day by day, while old jobs are purged, the account stays the same one."""
    api = serve(DemoAccount(0))
    for _ in range(6):
        for _ in range(20):
            api.account.finish(api.account.create(timedelta(minutes=72)))
        del api.account.jobs[:-40]
        days = [ListedJob.parse(job).created_at or START for job in api.account.jobs[-20:]]
        start, end = days[0], days[-1] + timedelta(minutes=1)
        load_into(TARGET, api, {"start_date": start, "end_date": end})
    assert len(content()) == 120


@pytest.mark.slow
def test_a_purged_account_without_a_state_is_recognized(serve: Serve) -> None:
    """Where the state is gone, the youngest jobs of the tables tell the account."""
    api = serve(DemoAccount(800))
    load_into(TARGET, api)
    query("DROP TABLE convertly_data._dlt_pipeline_state")
    del api.account.jobs[:-60]
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_a_long_history_keeps_few_landmarks(serve: Serve, tmp_path: Any) -> None:
    """The state has some jobs from all over the history, the newest page among them."""
    api = serve(DemoAccount(1500))
    load_into(TARGET, api, {"page_size": 50})
    pipeline = TARGET.pipeline(tmp_path / "reader")
    restore(pipeline)
    found = [key for _, key in landmarks(pipeline)]
    assert MAX_LANDMARKS // 2 <= len(found) <= MAX_LANDMARKS
    places = [number for number, job in enumerate(api.account.jobs) if job["id"] in found]
    assert places[0] < 700
    assert places[-1] > 1300
