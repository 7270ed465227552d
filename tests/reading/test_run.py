"""Runs against an account over HTTP, into DuckDB: what is read, what it costs, what is refused."""

import math
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import count
from threading import Barrier, BoundedSemaphore, Event
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.lists import (
    Clamping,
    Growing,
    HasAlwaysMore,
    IgnoresOffset,
    ListsOneTwice,
    OneByOne,
    Ragged,
    SamePage,
    SaysTooMany,
    Shrinking,
    in_no_order,
    old_page_swapped,
    oldest_first,
    restless,
    shuffled,
)
from helpers.warehouse import Warehouse

from convertly_source.demo import DemoAccount, DemoAPI, newest_first
from convertly_source.errors import ResponseError

Serve = Callable[..., DemoAPI]


def assert_equal(warehouse: Warehouse, account: DemoAccount) -> None:
    """Compare the jobs of the warehouse with those of the account."""
    jobs = [(job["id"], job["status"], job["progress"]) for job in account.jobs]
    assert warehouse.rows("jobs", "id", "status", "progress") == sorted(jobs)


def settled(size: int, **options: Any) -> DemoAccount:
    """Make an account in which every job has ended."""
    account = DemoAccount(size, **options)
    for job in account.unfinished():
        account.finish(job)
    return account


# The price, in requests of 100 jobs.


@pytest.mark.parametrize("size", [0, 1, 100, 101, 3000])
def test_a_full_load_takes_a_request_for_99_jobs_and_three(
    warehouse: Warehouse, serve: Serve, size: int
) -> None:
    """A first load of n jobs takes no more than ceil(n / 99) + 3 requests."""
    api = serve(settled(size))
    assert warehouse.load(api) <= -(-size // 99) + 3
    assert_equal(warehouse, api.account)


def test_nothing_new_and_nothing_open_takes_one_request(warehouse: Warehouse, serve: Serve) -> None:
    """A run that finds nothing to do asks once, and leaves the warehouse untouched."""
    api = serve(settled(2000))
    warehouse.load(api)
    before = warehouse.query("SELECT * FROM jobs ORDER BY id"), warehouse.query("FROM _dlt_loads")
    assert warehouse.load(api) == 1
    after = warehouse.query("SELECT * FROM jobs ORDER BY id"), warehouse.query("FROM _dlt_loads")
    assert after == before


def test_jobs_that_stay_open_take_the_two_status_lists(warehouse: Warehouse, serve: Serve) -> None:
    """Open jobs deep in the history cost two requests, and a stuck one is loaded once only."""
    api = serve(settled(2000))
    for number in (3, 700):
        api.account.jobs[number].update(status="processing", progress=50, results=None)
    warehouse.load(api)
    assert warehouse.load(api) == 3
    api.account.progress(api.account.jobs[700])
    assert warehouse.load(api) == 3
    assert_equal(warehouse, api.account)
    loads = warehouse.query("SELECT count(*) FROM _dlt_loads")
    assert warehouse.load(api) == 3
    assert warehouse.query("SELECT count(*) FROM _dlt_loads") == loads


@pytest.mark.parametrize(("has_open", "most"), [(False, 2), (True, 4)])
def test_thirty_new_jobs_take_two_requests(
    warehouse: Warehouse, serve: Serve, *, has_open: bool, most: int
) -> None:
    """30 new jobs take two requests, and two more when older ones are open."""
    api = serve(settled(2000))
    if has_open:
        api.account.jobs[3].update(status="pending", results=None)
    warehouse.load(api)
    for _ in range(30):
        api.account.create()
    assert warehouse.load(api) <= most
    assert_equal(warehouse, api.account)


def test_two_old_jobs_that_finish_take_25_requests(warehouse: Warehouse, serve: Serve) -> None:
    """Two jobs that end under 5,000 newer ones are found in 25 requests."""
    api = serve(settled(7000))
    for number in (17, 1999):
        api.account.jobs[number].update(status="processing", results=None)
    warehouse.load(api)
    for job in api.account.unfinished():
        api.account.finish(job)
    assert warehouse.load(api) <= 25
    assert_equal(warehouse, api.account)


def test_a_window_of_200_jobs_in_100_000_takes_30_requests(
    warehouse: Warehouse, serve: Serve
) -> None:
    """A window is found, not scanned, wherever it lies."""
    account = settled(100)
    account.jobs = [
        account.jobs[0] | {"id": str(number), "created_at": moment(number).isoformat()}
        for number in range(100_000)
    ]
    api = serve(account)
    for first in (0, 31_415, 99_800):
        window = {"start_date": moment(first), "end_date": moment(first + 200)}
        assert warehouse.load(api, **window) <= 30
        loaded = [str(number) for number in range(first, first + 200)]
        ids = warehouse.rows("jobs", "id")
        assert {(number,) for number in loaded} <= set(ids)
    assert len(ids) == 600


def moment(number: int) -> datetime:
    """Say when the job of that number was created."""
    return datetime.fromisoformat("2026-01-01T00:00:00+00:00") + timedelta(minutes=number)


# What becomes of unfinished jobs.


def test_a_job_is_followed_to_its_end_wherever_it_lies(warehouse: Warehouse, serve: Serve) -> None:
    """A job deep in the history is updated with its results when it finishes, then forgotten."""
    api = serve(settled(700))
    old = api.account.jobs[20]
    old.update(status="pending", progress=0, results=None, completed_at=None)
    warehouse.load(api)
    api.account.progress(old)
    warehouse.load(api)
    assert (old["id"], "processing", 50) in warehouse.rows("jobs", "id", "status", "progress")
    assert not warehouse.query(f"FROM jobs__results WHERE job_id = '{old['id']}'")
    api.account.finish(old)
    old["results"] = [{"filename": "a.webp"}, {"filename": "b.webp"}]
    warehouse.load(api)
    results = warehouse.rows("jobs__results", "job_id", "_dlt_list_idx", "filename")
    assert {(old["id"], 0, "a.webp"), (old["id"], 1, "b.webp")} <= set(results)
    assert_equal(warehouse, api.account)
    assert warehouse.load(api) == 1


def test_a_status_that_is_not_documented_is_unfinished(warehouse: Warehouse, serve: Serve) -> None:
    """A job in an unknown status is loaded as it is, and followed until it ends."""
    api = serve(settled(500))
    odd = api.account.jobs[20]
    odd.update(status="queued", results=None)
    warehouse.load(api)
    assert (odd["id"], "queued") in warehouse.rows("jobs", "id", "status")
    api.account.finish(odd)
    warehouse.load(api)
    assert_equal(warehouse, api.account)


@pytest.mark.parametrize("number", [3, 250, 499])
def test_a_vanished_job_is_recorded_once_and_stays(
    warehouse: Warehouse, serve: Serve, number: int
) -> None:
    """A job cancelled while pending goes to removed_jobs, and stays in jobs as last seen."""
    api = serve(settled(500))
    gone = api.account.jobs[number]
    gone.update(status="pending", results=None)
    warehouse.load(api)
    api.account.cancel(gone)
    warehouse.load(api)
    removed = [(gone["id"], "pending")]
    assert warehouse.rows("removed_jobs", "id", "last_status") == removed
    assert (gone["id"], "pending") in warehouse.rows("jobs", "id", "status")
    noticed = warehouse.query("SELECT created_at, noticed_at FROM removed_jobs")
    assert noticed[0][0] == datetime.fromisoformat(gone["created_at"].replace("Z", "+00:00"))
    assert warehouse.load(api) == 1
    assert warehouse.query("SELECT created_at, noticed_at FROM removed_jobs") == noticed


@pytest.mark.parametrize(
    ("numbers", "searches", "pages"),
    [
        (range(4000, 4400, 4), 1, 5),
        ((17, *range(4000, 4400, 4)), 2, 5),
        (range(0, 6900, 30), 1, 70),
    ],
)
def test_finished_jobs_near_each_other_are_read_together(
    warehouse: Warehouse, serve: Serve, numbers: Iterable[int], searches: int, pages: int
) -> None:
    """Jobs that end near each other cost their pages, once; one far from the others a search."""
    api = serve(settled(7000))
    for number in numbers:
        api.account.jobs[number].update(status="processing", results=None)
    warehouse.load(api)
    for job in api.account.unfinished():
        api.account.finish(job)
    search, ahead = 2 * math.ceil(math.log2(71)), 8
    assert warehouse.load(api) <= 3 + searches * search + pages + ahead
    assert_equal(warehouse, api.account)


def test_jobs_that_only_seem_near_are_searched(warehouse: Warehouse, serve: Serve) -> None:
    """Where a sparse time is followed by a busy one, what lies between two jobs is not read."""
    account = settled(100)
    account.jobs = [
        account.jobs[0]
        | {"id": str(number), "created_at": moment(min(number, 100) * 99 + number).isoformat()}
        for number in range(5000)
    ]
    api = serve(account)
    for number in (50, 4500):
        account.jobs[number].update(status="processing", results=None)
    warehouse.load(api)
    for job in account.unfinished():
        account.finish(job)
    assert warehouse.load(api) <= 40
    assert_equal(warehouse, account)


def test_many_jobs_of_the_last_minutes_are_not_loaded_again(
    warehouse: Warehouse, serve: Serve
) -> None:
    """Hundreds of jobs may have ended within the minutes that each run reads again."""
    api = serve(settled(10))
    for _ in range(700):
        api.account.finish(api.account.create(timedelta(milliseconds=1)))
    warehouse.load(api)
    warehouse.load(api)
    assert_equal(warehouse, api.account)
    assert warehouse.query("SELECT count(DISTINCT _dlt_load_id) FROM jobs") == [(1,)]


def test_a_job_of_an_unknown_age_is_met_when_the_one_before_it_vanished(
    warehouse: Warehouse, serve: Serve
) -> None:
    """A job without a time that stands beside the first age of the range may be of that age."""
    api = serve(settled(150))
    newest = api.account.create(timedelta(hours=1))
    warehouse.load(api)
    api.account.cancel(newest)
    api.account.create()["created_at"] = "yesterday"
    warehouse.load(api)
    [(reason, noticed_at)] = warehouse.rows("rejected_jobs", "reason", "noticed_at")
    assert reason == "no usable created_at"
    api.account.create()
    warehouse.load(api)  # meets it again
    assert warehouse.rows("rejected_jobs", "noticed_at") == [(noticed_at,)]


def test_unfinished_jobs_of_one_age_are_found_across_pages(
    warehouse: Warehouse, serve: Serve
) -> None:
    """When jobs of one age fill pages, those that ended and those that vanished are told apart."""
    api = serve(settled(10))
    twins = [api.account.create(timedelta(0)) for _ in range(40)]
    for _ in range(60):
        api.account.finish(api.account.create())
    warehouse.load(api, page_size=10)
    for job in twins[::2]:
        api.account.finish(job)
    for job in twins[1::2]:
        api.account.cancel(job)
    warehouse.load(api, page_size=10)
    content = dict(warehouse.rows("jobs", "id", "status"))
    assert {content[job["id"]] for job in twins[::2]} == {"completed"}
    assert {key for (key,) in warehouse.rows("removed_jobs", "id")} == {
        job["id"] for job in twins[1::2]
    }


# Orders.


@pytest.mark.parametrize(
    "order", [newest_first, oldest_first, restless, in_no_order, shuffled, old_page_swapped]
)
def test_every_order_is_read_exactly(warehouse: Warehouse, serve: Serve, order: Any) -> None:
    """Whatever the order of the list, each run leaves the warehouse equal to the account."""
    api = serve(DemoAPI(DemoAccount(550), order=order))
    warehouse.load(api)
    assert_equal(warehouse, api.account)
    api.account.finish(api.account.unfinished()[0])
    for _ in range(3):
        api.account.create()
    warehouse.load(api)
    assert_equal(warehouse, api.account)
    gone = api.account.unfinished()[1]
    api.account.cancel(gone)
    warehouse.load(api)
    assert warehouse.rows("removed_jobs", "id") == [(gone["id"],)]


def test_a_list_without_order_is_said_once(
    warehouse: Warehouse, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an order everything is read each time, and one warning in all says so."""
    api = serve(DemoAPI(settled(550), order=in_no_order))
    for _ in range(3):
        assert warehouse.load(api) >= 550 // 99
    assert [record.levelname for record in caplog.records if "order" in record.message] == [
        "WARNING"
    ]


def test_a_list_that_fits_in_a_page_needs_no_order(
    warehouse: Warehouse, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """An account of a page is not taken for one without order, as it may be sorted later."""
    api = serve(DemoAPI(settled(60), order=in_no_order))
    assert warehouse.load(api) == 1
    assert_equal(warehouse, api.account)
    assert not [record for record in caplog.records if "order" in record.message]


def test_250_jobs_of_one_age_in_a_restless_order(warehouse: Warehouse, serve: Serve) -> None:
    """Jobs of one age that fill pages, in another order with each request, are all read, once."""
    account = settled(120)
    for _ in range(250):
        account.finish(account.create(timedelta(0)))
    for _ in range(120):
        account.finish(account.create())
    api = serve(DemoAPI(account, order=restless))
    warehouse.load(api)
    assert_equal(warehouse, account)


@pytest.mark.parametrize("order", [newest_first, oldest_first, restless])
def test_an_account_of_one_age(warehouse: Warehouse, serve: Serve, order: Any) -> None:
    """An account whose jobs were all created at one moment is read."""
    account = DemoAccount(130, every=timedelta(0))
    api = serve(DemoAPI(account, order=order))
    warehouse.load(api, page_size=20)
    assert_equal(warehouse, account)


# Servers that do not keep to the documentation.


@pytest.mark.parametrize("api", [Clamping, Ragged, HasAlwaysMore, Shrinking])
def test_a_server_that_errs_harmlessly_is_read_exactly(
    warehouse: Warehouse, serve: Serve, api: type[DemoAPI]
) -> None:
    """Short pages, and a hasMore or total that is off a little, lose nothing."""
    served = serve(api(DemoAccount(800)))
    warehouse.load(served)
    assert_equal(warehouse, served.account)
    served.account.create()
    warehouse.load(served)
    assert_equal(warehouse, served.account)


@pytest.mark.parametrize(
    "api", [OneByOne, SaysTooMany, Growing, SamePage, IgnoresOffset, ListsOneTwice]
)
def test_a_server_that_hides_jobs_is_an_error(
    warehouse: Warehouse, serve: Serve, api: type[DemoAPI]
) -> None:
    """What can't be read exactly ends in an error, after a bounded number of requests."""
    served = serve(api(settled(800)))
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.load(served)
    cause = caught.value.__cause__
    assert cause
    assert isinstance(cause.__cause__, ResponseError)
    assert len(served.requests) < 600


def test_a_full_read_that_comes_short_names_both_figures(
    warehouse: Warehouse, serve: Serve
) -> None:
    """When the list holds fewer jobs than the total says, the error has both."""
    served = serve(SaysTooMany(settled(800)))
    with pytest.raises(PipelineStepFailed, match="says 840 jobs, but only 800 "):
        warehouse.load(served)


def test_a_job_that_is_listed_twice_hides_another(warehouse: Warehouse, serve: Serve) -> None:
    """When a full read meets one job in two places, the figures tell that one is missing."""
    served = serve(ListsOneTwice(settled(300)))
    with pytest.raises(PipelineStepFailed, match="says 300 jobs, but only 299 "):
        warehouse.load(served)


# Movement.


def test_a_first_load_of_a_busy_account_loses_nothing(warehouse: Warehouse, serve: Serve) -> None:
    """Creating, finishing and cancelling before each answer, four at a time, loses no job."""
    api = serve(DemoAccount(1500))
    there = {job["id"] for job in api.account.jobs}

    def live(account: DemoAccount) -> None:
        account.create()
        unfinished = account.unfinished()
        account.finish(unfinished[len(unfinished) // 2])
        if len(api.requests) % 3 == 0:
            account.cancel(account.unfinished()[0])

    api.before_answer = live
    warehouse.load(api)
    stayed = there & {job["id"] for job in api.account.jobs}
    assert {(key,) for key in stayed} <= set(warehouse.rows("jobs", "id"))
    api.before_answer = lambda _: None
    warehouse.load(api)
    content = dict(warehouse.rows("jobs", "id", "status"))
    assert {job["id"]: job["status"] for job in api.account.jobs}.items() <= content.items()


@pytest.mark.parametrize("order", [newest_first, oldest_first])
@pytest.mark.parametrize("size", [150, 1500])
def test_an_account_that_grows_with_each_request_is_read(
    warehouse: Warehouse, serve: Serve, order: Any, size: int
) -> None:
    """The end of a list is found and reached although it moves on before each answer."""
    api = serve(DemoAPI(settled(size), order=order))
    there = {(job["id"],) for job in api.account.jobs}
    api.before_answer = lambda account: account.finish(account.create())
    assert warehouse.load(api) <= 4 * size // 99 + 10
    assert there <= set(warehouse.rows("jobs", "id"))


def test_what_is_created_during_a_run_waits_for_the_next_one(
    warehouse: Warehouse, serve: Serve
) -> None:
    """A run ends with the job that was the newest at its start, so that its length is known."""
    api = serve(settled(500))

    def appear(account: DemoAccount) -> None:
        if len(api.requests) == 2:
            account.create(timedelta(hours=1))

    api.before_answer = appear
    warehouse.load(api)
    assert len(warehouse.rows("jobs", "id")) == 500
    warehouse.load(api)
    assert_equal(warehouse, api.account)


def test_a_job_that_appears_behind_the_read_is_no_contradiction(
    warehouse: Warehouse, serve: Serve
) -> None:
    """When a full read comes short of a total that has changed meanwhile, it is no error."""
    api = serve(settled(500))
    old = api.account.jobs.pop(3)

    def appear(account: DemoAccount) -> None:
        if len(api.requests) == 5:
            account.jobs.insert(3, old)

    api.before_answer = appear
    warehouse.load(api)
    assert len(warehouse.rows("jobs", "id")) == 499


# Settings that change what is read.


def test_a_status_filter_follows_jobs_in_and_out(warehouse: Warehouse, serve: Serve) -> None:
    """With a status, late entrants arrive, and what leaves it is updated a last time."""
    api = serve(settled(250))
    late, leaver = api.account.jobs[5], api.account.jobs[6]
    late.update(status="pending", results=None)
    leaver.update(status="processing", results=None)
    warehouse.load(api, status="processing")
    assert warehouse.rows("jobs", "id", "status") == [(leaver["id"], "processing")]
    api.account.progress(late)
    api.account.finish(leaver)
    warehouse.load(api, status="processing")
    expected = sorted([(leaver["id"], "completed"), (late["id"], "processing")])
    assert warehouse.rows("jobs", "id", "status") == expected
    api.account.finish(late, has_failed=True)
    api.account.finish(api.account.create())
    warehouse.load(api, status="processing")
    expected = sorted([(leaver["id"], "completed"), (late["id"], "failed")])
    assert warehouse.rows("jobs", "id", "status") == expected


def test_each_status_has_its_own_cursor(warehouse: Warehouse, serve: Serve) -> None:
    """A run with a status does not hide older jobs from a run without one, or with another."""
    api = serve(DemoAccount(400))
    warehouse.load(api, status="failed")
    assert {status for (status,) in warehouse.rows("jobs", "status")} == {"failed"}
    warehouse.load(api, status="completed")
    warehouse.load(api)
    assert_equal(warehouse, api.account)


def test_windows_tile_repeat_and_leave_the_cursor_alone(warehouse: Warehouse, serve: Serve) -> None:
    """Windows that touch load each job once; again, they bring changes; the cursor stays."""
    api = serve(DemoAccount(300))
    edge = api.account.jobs[150]["created_at"]
    old = api.account.jobs[99]
    warehouse.load(api, end_date=edge)
    assert len(warehouse.rows("jobs", "id")) == 150
    warehouse.load(api, start_date=edge, end_date="2027-01-01")
    assert_equal(warehouse, api.account)
    state = warehouse.pipeline.state["sources"]["convertly"]["resources"]["jobs"]
    assert set(state) <= {"incremental", "host"}
    api.account.finish(old)
    warehouse.load(api, end_date=edge)
    assert_equal(warehouse, api.account)
    assert warehouse.load(api) >= 3
    assert_equal(warehouse, api.account)


def test_a_start_date_is_where_the_first_run_begins(warehouse: Warehouse, serve: Serve) -> None:
    """With a start_date, older jobs are never loaded, nor looked through."""
    api = serve(settled(2000))
    start = api.account.jobs[1900]["created_at"]
    assert warehouse.load(api, start_date=start) <= 4
    assert len(warehouse.rows("jobs", "id")) == 100
    api.account.create()
    warehouse.load(api, start_date=start)
    assert len(warehouse.rows("jobs", "id")) == 101


def test_requests_run_ahead_within_the_limit(warehouse: Warehouse, serve: Serve) -> None:
    """No more than max_connections requests are under way at once, and more than one is."""
    account = settled(1500)
    api = DemoAPI(account)
    slots, most = BoundedSemaphore(3), [0]
    under_way = [0]
    handle = api.handle

    def counted(request: Any) -> None:
        assert slots.acquire(blocking=False)
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        Event().wait(0.01)
        handle(request)
        under_way[0] -= 1
        slots.release()

    api.handle = counted  # type: ignore[method-assign]
    serve(api)
    warehouse.load(api, max_connections=3)
    assert most[0] > 1
    assert_equal(warehouse, account)


def test_a_first_load_uses_all_connections_at_once(warehouse: Warehouse, serve: Serve) -> None:
    """Once the ends of the list are known, no page waits for another one to be answered."""
    api = DemoAPI(settled(1000))
    all_are_there, numbers, handle = Barrier(4), count(), api.handle

    def held(request: Any) -> None:
        if 2 <= next(numbers) < 6:
            all_are_there.wait(timeout=10)
        handle(request)

    api.handle = held  # type: ignore[method-assign]
    serve(api)
    warehouse.load(api)
    assert not all_are_there.broken
    assert_equal(warehouse, api.account)
