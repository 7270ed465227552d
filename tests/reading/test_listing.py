"""Pure decisions of the reading: which pages join, what is handed over; and failures once found."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from convertly_source.reading.front import Front
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.lists import in_no_order, restless
from helpers.warehouse import Warehouse
from hypothesis import given
from hypothesis import strategies as st

from convertly_source.api.client import JobsClient
from convertly_source.demo import DEMO_KEY, DEMO_START, DemoAccount, DemoAPI, Reply
from convertly_source.reading.job import ListedJob
from convertly_source.reading.pages import BEGINNING, END, DisorderError, Listed, Page, Pages

Serve = Callable[..., DemoAPI]


def job(number: int, age: int) -> Listed:
    """Make a job of that age, in minutes."""
    created_at = DEMO_START + timedelta(minutes=age)
    return Listed(created_at, str(number), ListedJob({}, str(number), created_at))


def page(jobs: list[Listed], rank: int, size: int, total: int | None = None) -> Page:
    """Cut a page out of a list that is sorted oldest first."""
    end = len(jobs) - rank
    return Page(jobs[max(0, end - size) : end], rank, total or len(jobs))


LISTS = st.lists(st.integers(0, 20), min_size=1, max_size=40).map(
    lambda ages: [job(number, age) for number, age in enumerate(sorted(ages))]
)


@given(jobs=LISTS, size=st.integers(2, 9))
def test_pages_at_rest_hand_over_each_job_once_in_order(jobs: list[Listed], size: int) -> None:
    """Pages that overlap by one job, at rest, give all jobs, none twice, oldest first."""
    front, rank, handed = Front(BEGINNING), max(0, len(jobs) - size), list[ListedJob]()
    while True:
        handed += front.take(page(jobs, rank, size))
        assert not front.is_short
        if not rank:
            break
        rank = max(0, rank + 1 - size)
        assert front.joins(page(jobs, rank, size), is_long=True)
    assert handed == [job.row for job in jobs]
    assert front.count == len(jobs)


@given(jobs=LISTS, size=st.integers(1, 9), rank=st.integers(0, 39), age=st.integers(0, 20))
def test_a_page_tells_where_it_begins(jobs: list[Listed], size: int, rank: int, age: int) -> None:
    """A page begins before an age only if no job of that age or younger is older in the list."""
    cut = page(jobs, min(rank, len(jobs) - 1), size)
    moment = DEMO_START + timedelta(minutes=age)
    before = jobs[: len(jobs) - cut.end]
    if cut.begins_before(moment):
        assert all(job.age < moment for job in before)
    assert cut.begins_before(END)
    assert cut.places(moment) == [job.age for job in cut.jobs].count(moment)


@given(jobs=LISTS, size=st.integers(3, 9), moved=st.integers(-3, 5))
def test_a_page_that_joins_by_an_older_job_loses_nothing(
    jobs: list[Listed], size: int, moved: int
) -> None:
    """However many jobs appear or vanish meanwhile, a page that joins leaves none out."""
    front, rank = Front(BEGINNING), max(0, len(jobs) - size)
    handed = front.take(page(jobs, rank, size))
    after = jobs[: len(jobs) + min(0, moved)]
    after = after + [job(1000 + number, 30) for number in range(moved)]
    following = page(after, max(0, min(rank + 2, len(after)) - size), size)
    if front.joins(following, is_long=False):
        reached = following.youngest
        handed += front.take(following)
        assert {job.row.id for job in after if job.age < reached} <= {row.id for row in handed}


def test_a_page_of_a_list_that_changed_its_length_only_joins_by_an_older_job() -> None:
    """In a list that moves, a job of the same age where pages overlap is not enough."""
    jobs = [job(number, number) for number in range(10)]
    front = Front(BEGINNING)
    front.take(page(jobs, 6, 4))
    assert front.joins(page(jobs, 3, 4), is_long=True)
    assert not front.joins(page(jobs, 3, 4), is_long=False)
    assert not front.joins(page(jobs, 3, 4, total=11), is_long=True)
    assert not front.joins(page(jobs, 2, 4), is_long=True)
    assert front.joins(page(jobs, 4, 4, total=11), is_long=False)


def test_a_gap_is_no_join() -> None:
    """Where one age fills pages, a page that leaves places out between does not join."""
    twins = [job(number, 0) for number in range(9)]
    front = Front(DEMO_START)
    front.take(page(twins, 6, 3))
    assert front.joins(page(twins, 4, 3), is_long=False)
    assert not front.joins(page(twins, 2, 3), is_long=False)


def test_a_count_of_jobs_that_change_places_is_repeated() -> None:
    """Jobs of one age that change places are complete when two counts have met the same."""
    twins = [job(number, 0) for number in range(5)]
    moved = [twins[0], twins[2], twins[1], twins[3], twins[4]]
    front = Front(DEMO_START)
    for is_complete in (False, True):
        front.look_again()
        front.take(page(twins, 2, 3))
        assert front.joins(page(moved, 0, 4), is_long=False)
        front.take(page(moved, 0, 4))
        assert front.is_short is not is_complete
    assert front.count == 5


def test_the_pages_that_follow_end_with_the_newest(serve: Serve) -> None:
    """From the oldest page on, those that follow overlap, and end with the newest jobs."""
    api = serve(DemoAccount(95))
    pages = Pages(JobsClient(DEMO_KEY, api.url), page_size=20, max_connections=3)
    ranks = [page.rank for page in pages.after(pages.at(75))]
    assert ranks == [57, 39, 21, 3, 0]


@pytest.mark.parametrize("status", [None, "pending"])
def test_the_same_page_for_ever_is_given_up(
    warehouse: Warehouse, serve: Serve, status: str | None
) -> None:
    """A list that is said to be endless, of which one page comes again and again, has an end."""
    api = serve(DemoAccount(300))
    if status:
        warehouse.load(api)
        api.requests.clear()

    def endless(query: dict[str, str]) -> Reply | None:
        if query.get("status") != status:
            return None
        body = api.page(100, 0, status)
        body["pagination"] |= {"offset": int(query["offset"]), "total": 10**15}
        return Reply(200, body)

    api.fault = endless
    if status:
        warehouse.load(api)
    else:
        with pytest.raises(PipelineStepFailed, match="says 1000000000000000 jobs, but only"):
            warehouse.load(api)
    assert len(api.requests) < 150


def test_an_end_that_runs_away_is_given_up(warehouse: Warehouse, serve: Serve) -> None:
    """A list that grows by pages between two requests is an error, after a bounded number."""
    api = serve(DemoAccount(50))

    def grow(account: DemoAccount) -> None:
        for _ in range(20):
            account.create()

    api.before_answer = grow
    with pytest.raises(PipelineStepFailed, match="different ones could be read"):
        warehouse.load(api, page_size=10)
    assert len(api.requests) < 40


# Failures that the model of the account found.


def test_a_job_that_vanished_does_not_stand_in_for_another() -> None:
    """What was met before the list changed its length does not count after it, if as long again."""
    front = Front(DEMO_START)
    twins = [job(number, 0) for number in range(4)]
    front.take(page(twins[:3], 0, 2, total=3))
    replaced = [twins[1], twins[2], twins[3]]
    front.take(page(twins[:3], 1, 2, total=4))
    front.take(page(replaced, 1, 2))
    front.take(page([*replaced[:2], twins[2]], 0, 2))
    assert front.is_short


def test_a_page_joins_by_a_job_without_an_age() -> None:
    """Where pages overlap in a job of an unknown age, it is known by itself."""
    jobs = [job(number, number) for number in range(5)]
    front = Front(BEGINNING)
    front.take(page([*jobs[:2], jobs[2]._replace(age=jobs[1].age), *jobs[3:]], 2, 3))
    ageless = jobs[2]._replace(age=BEGINNING)
    assert front.joins(page([*jobs[:2], ageless, *jobs[3:]], 0, 3), is_long=True)
    other = ageless._replace(key="9")
    assert not front.joins(page([*jobs[:2], other, *jobs[3:]], 0, 3), is_long=True)


def test_jobs_of_an_unknown_age_may_change_places(warehouse: Warehouse, serve: Serve) -> None:
    """Jobs of an unknown age that fill pages and change places are all recorded."""
    account = DemoAccount(20)
    for number in range(12):
        account.create(error_message=str(number))["created_at"] = "yesterday"
    warehouse.load(serve(DemoAPI(account, order=restless)), page_size=6)
    assert len(warehouse.rows("rejected_jobs", "fingerprint")) == 12
    assert len(warehouse.rows("jobs", "id")) == 20


def test_jobs_without_an_id_are_told_apart(warehouse: Warehouse, serve: Serve) -> None:
    """Jobs of one age without an id, in a restless order that fills pages, are all recorded."""
    account = DemoAccount(5)
    for number in range(12):
        job = account.create(timedelta(0), error_message=str(number))
        job["id"] = None if number % 3 == 0 else job["id"]
    warehouse.load(serve(DemoAPI(account, order=restless)), page_size=6)
    assert len(warehouse.rows("rejected_jobs", "fingerprint")) == 4
    assert len(warehouse.rows("jobs", "id")) == 13


def test_an_order_that_the_first_page_refutes_is_not_believed(
    warehouse: Warehouse, serve: Serve
) -> None:
    """A first page without order counts even if its ends look sorted and other pages are."""

    def few_swapped(jobs: list[Any]) -> list[Any]:
        ordered = sorted(jobs, key=lambda job: job["created_at"])
        return [ordered[1], ordered[-1], ordered[2], *ordered[3:-1], ordered[0]]

    account = DemoAccount(40)
    warehouse.load(serve(DemoAPI(account, order=few_swapped)), page_size=8)
    assert len(warehouse.rows("jobs", "id")) == 40


def test_ages_out_of_order_between_pages_are_noticed() -> None:
    """When pages that follow have an older job in a new place twice, the list is not sorted."""
    front = Front(BEGINNING)
    front.take(page([job(0, 5), job(1, 6), job(2, 7)], 1, 2))
    following = page([job(1, 1)], 0, 1, total=3)
    assert not front.joins(following, is_long=True)
    with pytest.raises(DisorderError):
        front.joins(following, is_long=True)


def test_a_page_that_was_fetched_earlier_is_no_disorder(warehouse: Warehouse, serve: Serve) -> None:
    """When a page is answered late, after the pages ahead of it, the list may have moved on.

    The soak test found this: the account was taken for one without order.
    """
    api = serve(DemoAccount(1000))
    for job in api.account.jobs[:5]:
        job.update(status="pending", results=None)
    there = {job["id"] for job in api.account.jobs}

    def move_once(account: DemoAccount) -> None:  # so that pages overlap by more
        if len(api.requests) == 2:
            account.create()

    def retry_one_late(query: dict[str, str]) -> Reply | None:
        if len(api.requests) != 4:
            return None
        while len(api.requests) < 5:  # the page ahead is answered first
            time.sleep(0.001)
        time.sleep(0.1)
        for job in api.account.jobs[:5]:
            api.account.create()
            api.account.cancel(job)
        return Reply(503, query)

    api.before_answer = move_once
    api.fault = retry_one_late
    warehouse.load(api)
    stayed = there & {job["id"] for job in api.account.jobs}
    assert {(key,) for key in stayed} <= set(warehouse.rows("jobs", "id"))
    state = warehouse.pipeline.state["sources"]["convertly"]["resources"]["jobs"]["all"]
    assert not state["is_unordered"]


def test_a_window_of_a_list_without_order_is_complete(warehouse: Warehouse, serve: Serve) -> None:
    """Without an order, a window still gets each of its jobs, and none else."""
    account = DemoAccount(60)
    start, end = account.jobs[10]["created_at"], account.jobs[30]["created_at"]
    api = serve(DemoAPI(account, order=in_no_order))
    warehouse.load(api, page_size=8, start_date=start, end_date=end)
    expected = sorted((job["id"],) for job in account.jobs[10:30])
    assert warehouse.rows("jobs", "id") == expected
