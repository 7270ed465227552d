"""Pure decisions of the reading: which pages join, what is handed over; and failures once found."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from conftest import Warehouse
from dlt.pipeline.exceptions import PipelineStepFailed
from hypothesis import given
from hypothesis import strategies as st
from lists import in_no_order, restless

from convertly_source.demo import DEMO_START, DemoAccount, DemoAPI
from convertly_source.listing import Front
from convertly_source.pages import BEGINNING, END, DisorderError, Page
from convertly_source.results import Row

Serve = Callable[..., DemoAPI]


def row(number: int, age: int | None) -> Row:
    """Make a job of that age, in minutes."""
    created_at = None if age is None else DEMO_START + timedelta(minutes=age)
    return Row({"id": str(number)}, str(number), created_at)


def page(rows: list[Row], rank: int, size: int, total: int | None = None) -> Page:
    """Cut a page out of a list that is sorted oldest first."""
    end = len(rows) - rank
    cut = rows[max(0, end - size) : end]
    return Page(cut, [row.created_at for row in cut], rank, total or len(rows))


LISTS = st.lists(st.integers(0, 20), min_size=1, max_size=40).map(
    lambda ages: [row(number, age) for number, age in enumerate(sorted(ages))]
)


@given(rows=LISTS, size=st.integers(2, 9))
def test_pages_at_rest_hand_over_each_job_once_in_order(rows: list[Row], size: int) -> None:
    """Pages that follow each other give all jobs, none twice, oldest first."""
    front, rank, handed = Front(BEGINNING, END), max(0, len(rows) - size), list[Row]()
    last = page(rows, rank, size)
    while True:
        handed += front.take(last, 0)
        assert not front.is_short
        if not rank:
            break
        rank = max(0, rank + 1 - size)
        following = page(rows, rank, size)
        assert following.follows(last, front.age)
        last = following
    assert sorted(job.id or "" for job in handed) == sorted(job.id or "" for job in rows)
    ages = [job.created_at for job in handed if job.created_at]
    assert ages == sorted(ages)


@given(rows=LISTS, size=st.integers(2, 9), rank=st.integers(0, 39), age=st.integers(0, 20))
def test_a_page_tells_what_it_shows(rows: list[Row], size: int, rank: int, age: int) -> None:
    """A page begins before an age, or shows all of it, exactly when no such job is elsewhere."""
    cut = page(rows, min(rank, len(rows) - 1), size)
    moment = DEMO_START + timedelta(minutes=age)
    older = rows[: len(rows) - cut.end]
    if cut.begins_before(moment):
        assert all(job.created_at and job.created_at < moment for job in older)
    if cut.shows(moment):
        elsewhere = [job for job in rows if job not in cut.rows]
        assert not any(job.created_at == moment for job in elsewhere)


@given(rows=LISTS, size=st.integers(3, 9), moved=st.integers(1, 5))
def test_a_page_with_an_older_job_joins_however_the_list_moves(
    rows: list[Row], size: int, moved: int
) -> None:
    """After any number of new jobs, a page that begins before the age read loses nothing."""
    rank = max(0, len(rows) - size)
    front = Front(BEGINNING, END)
    handed = front.take(page(rows, rank, size), 0)
    grown = rows + [row(1000 + number, 30) for number in range(moved)]
    following = page(grown, max(0, rank + 2 - size), size)
    if following.begins_before(front.age):
        handed += front.take(following, 1)
        reached = [job for job in grown if job.created_at and job.created_at < front.age]
        assert {job.id for job in reached} <= {job.id for job in handed}


def test_a_longer_list_does_not_follow() -> None:
    """A page of a list that changed its length does not follow by its look alone."""
    rows = [row(number, number) for number in range(10)]
    before, after = page(rows, 6, 4), page(rows, 3, 4)
    assert after.follows(before, DEMO_START + timedelta(minutes=3))
    assert not page(rows, 3, 4, total=11).follows(before, DEMO_START + timedelta(minutes=3))
    assert not page(rows, 2, 4).follows(before, DEMO_START + timedelta(minutes=3))


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
    front = Front(DEMO_START, END)
    twins = [row(number, 0) for number in range(4)]
    front.take(page(twins[:3], 0, 2, total=3), 0)
    replaced = [twins[1], twins[2], twins[3]]
    front.take(page(replaced, 1, 2), 2)
    front.take(page([*replaced[:2], twins[2]], 0, 2), 2)
    assert front.is_short


def test_a_page_follows_by_a_job_without_an_age() -> None:
    """Where pages overlap in a job of an unknown age, it is known by itself."""
    rows = [row(0, 0), row(1, 1), row(2, None), row(3, 3), row(4, 4)]
    before, after = page(rows, 2, 3), page(rows, 0, 3)
    assert after.follows(before, DEMO_START + timedelta(minutes=1))
    other = Page([row(9, None), *after.rows[1:]], after.ages, 0, 5)
    assert not other.follows(before, DEMO_START + timedelta(minutes=1))


def test_jobs_of_an_unknown_age_may_change_places() -> None:
    """Two jobs of an unknown age that stand in each other's place are both handed over, once."""
    front = Front(DEMO_START, END)
    rows = [row(0, 1), row(1, None), row(2, None)]
    first = front.take(page(rows, 1, 2), 0)
    second = front.take(page([rows[0], rows[2], rows[1]], 0, 3), 0)
    assert sorted(job.id or "" for job in first + second) == ["0", "1", "2"]


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
    """When a page that follows has an older job in a new place, the list is not sorted."""
    front = Front(BEGINNING, END)
    front.take(page([row(0, 5), row(1, 6), row(2, 7)], 1, 2, total=3), 0)
    with pytest.raises(DisorderError):
        front.take(Page([row(1, 1)], [DEMO_START], 0, 3), 0)


def test_a_window_of_a_list_without_order_is_complete(warehouse: Warehouse, serve: Serve) -> None:
    """Without an order, a window still gets each of its jobs, and none else."""
    account = DemoAccount(60)
    start, end = account.jobs[10]["created_at"], account.jobs[30]["created_at"]
    api = serve(DemoAPI(account, order=in_no_order))
    warehouse.load(api, page_size=8, start_date=start, end_date=end)
    expected = sorted((job["id"],) for job in account.jobs[10:30])
    assert warehouse.rows("jobs", "id") == expected
