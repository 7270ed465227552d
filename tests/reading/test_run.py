"""What a run reads and leaves to the next one: open jobs, late ones, orders, odd servers, kills."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count
from threading import Barrier, BoundedSemaphore, Event
from typing import Any, cast

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
from helpers.model import Direct, Shelf
from helpers.warehouse import Warehouse

from convertly_source import convertly_source
from convertly_source.api.client import JobsClient, JobsPage
from convertly_source.demo import DEMO_KEY, DEMO_START, DemoAccount, DemoAPI, newest_first
from convertly_source.errors import ResponseError
from convertly_source.reading.job import BEGINNING, END, LAG, ListedJob
from convertly_source.reading.run import MAX_ENDED_JOBS

Serve = Callable[..., DemoAPI]
Order = Callable[[list[Any]], list[Any]]
MINUTE = timedelta(minutes=1)
BOTH_ORDERS = pytest.mark.parametrize("order", [newest_first, oldest_first])


class Dated(Direct):
    """Answers with a time of its own."""

    date: datetime

    def page(self, offset: int, limit: int, status: str | None = None) -> JobsPage:
        """Answer with that `Date`."""
        return super().page(offset, limit, status)._replace(date=self.date)


def settled(size: int, every: timedelta = MINUTE) -> DemoAccount:
    """Make an account in which every job has ended."""
    account = DemoAccount(size, every=every)
    for job in account.unfinished():
        account.finish(job)
    return account


def assert_equal(shelf: Shelf, account: DemoAccount) -> None:
    """Compare the jobs that were loaded with those of the account, and the counts."""
    loaded = {key: (job["status"], job["progress"]) for key, job in shelf.jobs.items()}
    expected = {job["id"]: (job["status"], job["progress"]) for job in account.jobs}
    assert {key: loaded.get(key) for key in expected} == expected
    assert shelf.last_run.held == shelf.last_run.listed == len(account.jobs)


def created_at(job: Any) -> datetime:
    """Return when a job was created."""
    return ListedJob.parse(job).created_at or BEGINNING


def insert(account: DemoAccount, position: int, before: timedelta) -> Any:
    """Let a finished job appear late: it was created that long before the newest one."""
    job = account.create(-before)
    account.create(before)
    account.jobs.remove(job)
    account.jobs.insert(position, job)
    account.finish(job)
    return job


# Unfinished jobs.


def test_a_job_is_followed_to_its_end_wherever_it_lies(warehouse: Warehouse, serve: Serve) -> None:
    """A job deep in the history is updated with its results when it finishes, then forgotten."""
    api = serve(settled(300))
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
    assert warehouse.load(api) == 1


def test_a_run_without_news_leaves_the_warehouse_untouched(
    warehouse: Warehouse, serve: Serve
) -> None:
    """A run that finds nothing to do writes its row of `runs`, and no state."""
    api = serve(settled(200))
    api.account.jobs[3].update(status="processing", progress=50, results=None)
    warehouse.load(api)
    before = warehouse.query("FROM jobs ORDER BY id"), warehouse.query("FROM _dlt_pipeline_state")
    assert warehouse.load(api) == 3
    after = warehouse.query("FROM jobs ORDER BY id"), warehouse.query("FROM _dlt_pipeline_state")
    assert after == before


def test_a_status_that_is_not_documented_is_unfinished() -> None:
    """A job in an unknown status is loaded as it is, and followed until it ends."""
    api, shelf = DemoAPI(settled(500)), Shelf()
    odd = api.account.jobs[20]
    odd.update(status="queued", results=None)
    shelf.run(api)
    assert shelf.jobs[odd["id"]]["status"] == "queued"
    api.account.finish(odd)
    shelf.run(api)
    assert_equal(shelf, api.account)


@BOTH_ORDERS
@pytest.mark.parametrize("number", [0, 3, 250, 499])
def test_a_vanished_job_is_recorded_once(number: int, order: Order) -> None:
    """A job cancelled while pending is handed over as removed, once."""
    api, shelf = DemoAPI(settled(500), order=order), Shelf()
    gone = api.account.jobs[number]
    gone.update(status="pending", results=None)
    for _ in range(3):
        shelf.run(api)
        assert shelf.last_run.held == shelf.last_run.listed == len(api.account.jobs)
        assert shelf.removed == [gone["id"]] * (len(api.account.jobs) < 500)
        api.account.cancel(gone)


def test_a_job_that_vanishes_while_it_is_looked_for_is_no_rise() -> None:
    """A job that was counted, and vanished before it was looked for, is not taken for a late one.

    Fewer jobs are expected than were counted, so they are counted again.
    """
    api, shelf = DemoAPI(settled(500)), Shelf()
    gone = api.account.jobs[30]
    gone.update(status="pending", results=None)
    shelf.run(api)
    asked = len(api.requests)

    def vanish(account: DemoAccount) -> None:
        if len(api.requests) == asked + 2:
            account.cancel(gone)

    api.before_answer = vanish
    shelf.run(api)
    assert shelf.removed == [gone["id"]]
    assert not shelf.state["count_has_risen"]
    shelf.run(api)
    assert_equal(shelf, api.account)


def test_a_job_that_vanishes_after_it_was_looked_for_is_no_rise() -> None:
    """One is gone before the lists of unfinished jobs, another after them: none has come late."""
    api, shelf = DemoAPI(settled(50)), Shelf()
    first, second = api.account.jobs[10], api.account.jobs[20]
    for job in (first, second):
        job.update(status="pending", results=None)
    shelf.run(api)
    asked = len(api.requests)

    def vanish(account: DemoAccount) -> None:
        for job, number in ((second, 2), (first, 5)):
            if len(api.requests) == asked + number:
                account.cancel(job)

    api.before_answer = vanish
    shelf.run(api)
    assert shelf.removed == [second["id"]]
    shelf.run(api)
    assert shelf.removed == [second["id"], first["id"]]
    assert not shelf.state["count_has_risen"]
    assert_equal(shelf, api.account)


def test_a_job_that_a_killed_run_has_passed_is_no_rise() -> None:
    """A job that vanished is not counted by the run that reads past it, even if that is killed.

    The next run, which misses it, expects no job less than were counted.
    """
    api, shelf = DemoAPI(settled(500)), Shelf()
    gone = api.account.create()
    shelf.run(api)
    api.account.cancel(gone)
    for _ in range(400):
        api.account.finish(api.account.create())
    shelf.run(api, kill_after=5)
    assert shelf.state["jobs_read"] > 200
    assert shelf.removed == []
    shelf.run(api)
    assert shelf.removed == [gone["id"]]
    assert not shelf.state["count_has_risen"]
    assert_equal(shelf, api.account)


def test_a_reopened_job_is_loaded_again() -> None:
    """A job that had ended and is open again is seen in the lists of open jobs, and followed."""
    api, shelf = DemoAPI(settled(500)), Shelf()
    api.account.jobs[9].update(status="pending", results=None)
    shelf.run(api)
    reopened = api.account.jobs[300]
    reopened.update(status="processing", progress=10)
    shelf.run(api)
    assert_equal(shelf, api.account)
    api.account.finish(reopened)
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert shelf.handed_over == 1


def test_unfinished_jobs_of_one_time_are_found_across_pages() -> None:
    """When jobs of one time fill pages, those that ended and those that vanished are told apart."""
    api, shelf = DemoAPI(settled(10)), Shelf()
    twins = [api.account.create(timedelta(0)) for _ in range(40)]
    for _ in range(60):
        api.account.finish(api.account.create())
    shelf.run(api, page_size=10)
    for job in twins[::2]:
        api.account.finish(job)
    for job in twins[1::2]:
        api.account.cancel(job)
    shelf.run(api, page_size=10)
    assert {shelf.jobs[job["id"]]["status"] for job in twins[::2]} == {"completed"}
    assert set(shelf.removed) == {job["id"] for job in twins[1::2]}
    assert_equal(shelf, api.account)


# The last minutes, late jobs, and the count behind the cursor.


def test_many_jobs_of_the_last_minutes_are_not_loaded_again() -> None:
    """Hundreds of jobs may have ended within the minutes that each run reads again."""
    api, shelf = DemoAPI(settled(10)), Shelf()
    for _ in range(700):
        api.account.finish(api.account.create(timedelta(milliseconds=1)))
    shelf.run(api)
    shelf.run(api)
    assert shelf.handed_over == 0
    assert_equal(shelf, api.account)


def test_the_cursor_stays_when_the_youngest_job_vanishes() -> None:
    """The jobs that stood LAG before it are not loaded again once the youngest one is gone."""
    api, shelf = DemoAPI(settled(100)), Shelf()
    late, youngest = api.account.create(3 * MINUTE), api.account.create(3 * MINUTE)
    api.account.finish(late)
    api.account.jobs.remove(late)
    shelf.run(api)
    api.account.cancel(youngest)
    api.account.jobs.append(late)
    for expected in (1, 0):
        shelf.run(api)
        assert shelf.handed_over == expected
        assert shelf.state["cursor"] == created_at(youngest)
        assert_equal(shelf, api.account)


def test_what_is_remembered_of_the_last_minutes_is_bounded() -> None:
    """Of more jobs than that, those that were created first are handed over again."""
    api, shelf = DemoAPI(settled(10)), Shelf()
    for _ in range(MAX_ENDED_JOBS + 300):
        api.account.finish(api.account.create(timedelta(milliseconds=1)))
    shelf.run(api)
    assert len(shelf.state["tracked"]) == MAX_ENDED_JOBS
    shelf.run(api)
    assert 0 < shelf.handed_over <= 310
    assert_equal(shelf, api.account)


def test_a_job_that_changes_after_its_end_is_loaded_again() -> None:
    """Within the last minutes, another final status is seen."""
    api, shelf = DemoAPI(settled(10)), Shelf()
    shelf.run(api)
    api.account.jobs[-1]["status"] = "failed"
    shelf.run(api)
    assert shelf.handed_over == 1
    assert_equal(shelf, api.account)


def test_a_job_that_appears_within_the_lag_is_loaded() -> None:
    """A job may become visible some minutes after it was created."""
    api, shelf = DemoAPI(settled(300)), Shelf()
    shelf.run(api)
    insert(api.account, 295, before=LAG - MINUTE)
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert not shelf.state["count_has_risen"]


@BOTH_ORDERS
@pytest.mark.parametrize("position", [0, 5, 150, 280])
def test_a_job_that_appears_later_is_brought_by_the_next_run(
    caplog: pytest.LogCaptureFixture, position: int, order: Order
) -> None:
    """However late a job appears, the count rises: a warning says so, all is read again, once."""
    api, shelf = DemoAPI(settled(300), order=order), Shelf()
    shelf.run(api)
    job = api.account.create()
    api.account.finish(job)
    shelf.run(api)
    api.account.jobs.remove(job)
    time = created_at(api.account.jobs[position]) - timedelta(seconds=1)
    api.account.jobs.insert(position, job | {"created_at": time.isoformat(), "id": "late"})
    shelf.run(api)
    assert shelf.state["count_has_risen"]
    assert "1 jobs have appeared more than 5 minutes after they were created" in caplog.text
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert not shelf.state["count_has_risen"]
    assert shelf.run(api) <= 2
    assert shelf.handed_over == 0


def test_reading_again_is_not_begun_anew_by_a_kill() -> None:
    """The full read that a risen count leads to continues where it was killed."""
    api, shelf = DemoAPI(settled(3000)), Shelf()
    shelf.run(api)
    shelf.state["count_has_risen"] = True
    shelf.run(api, kill_after=20)
    assert not shelf.state["count_has_risen"]
    assert shelf.run(api) < 20
    assert_equal(shelf, api.account)


def test_a_purge_is_not_news() -> None:
    """Where ended jobs were deleted or purged, the count falls, and the next ones are compared."""
    api, shelf = DemoAPI(settled(500)), Shelf()
    shelf.run(api)
    del api.account.jobs[:120], api.account.jobs[100]
    shelf.run(api)
    assert shelf.handed_over == 0
    assert_equal(shelf, api.account)
    time = created_at(api.account.jobs[0]) - MINUTE
    api.account.jobs.insert(0, api.account.jobs[0] | {"created_at": time.isoformat(), "id": "late"})
    shelf.run(api)
    shelf.run(api)
    assert_equal(shelf, api.account)


def test_positions_follow_a_purge() -> None:
    """After a purge, an unfinished job is found where it stands now."""
    api, shelf = DemoAPI(settled(5000)), Shelf()
    for number in (2500, 4000):
        api.account.jobs[number].update(status="processing", results=None)
    shelf.run(api)
    del api.account.jobs[:2000]
    for job in api.account.unfinished():
        api.account.finish(job)
    assert shelf.run(api) <= 5
    assert_equal(shelf, api.account)


def test_a_position_is_known_when_younger_jobs_have_vanished() -> None:
    """An unfinished job stands somewhere, though more jobs are gone than stood before it."""
    api, shelf = DemoAPI(settled(500)), Shelf()
    api.account.jobs[50].update(status="processing", results=None)
    shelf.run(api)
    del api.account.jobs[100:300]
    shelf.run(api)
    key = api.account.jobs[50]["id"]
    assert shelf.state["tracked"][key][3] >= 0


def test_a_cursor_of_the_future_hides_no_jobs() -> None:
    """If the clock was wrong once, the next run reads all again, however many were purged."""
    api, shelf = DemoAPI(settled(300)), Shelf()
    client, newest = Dated(api), api.account.jobs[-1]
    now = created_at(newest)
    newest["created_at"] = (now + timedelta(days=1)).isoformat()
    client.date = now + timedelta(days=2)
    shelf.run(api, client=cast("JobsClient", client))
    client.date = now + timedelta(hours=1)
    for _ in range(10):
        api.account.jobs.insert(-1, api.account.create())
        api.account.jobs.pop()
    del api.account.jobs[:10]
    shelf.run(api, client=cast("JobsClient", client))
    assert_equal(shelf, api.account)


def test_a_job_of_the_future_does_not_move_the_cursor() -> None:
    """A job dated a year ahead is loaded, once, and hides no job that is created until then."""
    api, shelf = DemoAPI(settled(300)), Shelf()
    future = datetime.now(timezone.utc) + timedelta(days=365)
    api.account.jobs[-1]["created_at"] = future.isoformat()
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert shelf.state["cursor"] == created_at(api.account.jobs[-2])
    for _ in range(2):
        api.account.jobs.insert(-1, api.account.create())
        del api.account.jobs[-1]
        shelf.run(api)
        assert shelf.handed_over == 1
        assert_equal(shelf, api.account)


def test_a_job_without_a_time_that_passes_for_older_is_met() -> None:
    """A job without a time counts as old as its older neighbour; if that has gone, it is late."""
    api, shelf = DemoAPI(settled(150)), Shelf()
    newest = api.account.create(timedelta(hours=1))
    shelf.run(api)
    api.account.cancel(newest)
    api.account.create()["created_at"] = "yesterday"
    shelf.run(api)
    shelf.run(api)
    assert len(shelf.rejected) == 1
    assert not shelf.state["count_has_risen"]


# Orders.


@pytest.mark.parametrize(
    "order", [newest_first, oldest_first, restless, in_no_order, shuffled, old_page_swapped]
)
def test_every_order_is_read_exactly(order: Order) -> None:
    """Whatever the order of the list, each run leaves the warehouse equal to the account."""
    api, shelf = DemoAPI(DemoAccount(350, every=MINUTE), order=order), Shelf()
    shelf.run(api)
    assert_equal(shelf, api.account)
    api.account.finish(api.account.unfinished()[0])
    for _ in range(3):
        api.account.create()
    shelf.run(api)
    assert_equal(shelf, api.account)
    gone = api.account.unfinished()[1]
    api.account.cancel(gone)
    shelf.run(api)
    assert shelf.removed == [gone["id"]]


def test_a_list_without_order_is_read_whole_until_it_heals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without an order each run reads everything, and says so; it ends when there is one."""
    api, shelf = DemoAPI(settled(550), order=in_no_order), Shelf()
    for number in (1, 2):
        assert shelf.run(api) >= 550 // 99
        assert caplog.text.count("this run reads all of them") == number
    api.order = newest_first
    shelf.run(api)
    assert shelf.run(api) == 1
    assert caplog.text.count("order") == 2
    assert_equal(shelf, api.account)


def test_a_job_gone_from_a_list_without_order_is_not_counted() -> None:
    """Without an order, all that is listed was handed over, whatever has gone."""
    api, shelf = DemoAPI(DemoAccount(12, every=MINUTE), order=in_no_order), Shelf()
    shelf.run(api)
    api.account.cancel(api.account.unfinished()[0])
    for _ in range(100):
        api.account.finish(api.account.create())
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert len(shelf.removed) == 1


def test_a_killed_read_without_order_keeps_the_times_of_jobs() -> None:
    """The next run, which sees an order, finds what became of them."""
    api, shelf = DemoAPI(settled(400)), Shelf()
    job = api.account.jobs[150]
    job.update(status="pending", results=None)
    shelf.run(api)
    for _ in range(200):
        api.account.finish(api.account.create())
    api.order = in_no_order
    shelf.run(api, kill_after=6)
    api.order = newest_first
    api.account.finish(job)
    api.account.jobs.pop(0)
    shelf.run(api)
    assert shelf.removed == []
    assert_equal(shelf, api.account)


def test_a_list_that_fits_in_a_page_needs_no_order(caplog: pytest.LogCaptureFixture) -> None:
    """An account of a page is not taken for one without order, as it may be sorted later."""
    api, shelf = DemoAPI(settled(60), order=in_no_order), Shelf()
    assert shelf.run(api) == 1
    assert_equal(shelf, api.account)
    assert "order" not in caplog.text


def test_a_full_read_that_comes_short_shows_disorder() -> None:
    """When pages look sorted but do not hold all jobs, the list is read without an order."""

    def two_halves(jobs: list[Any]) -> list[Any]:
        ordered = newest_first(jobs)
        return ordered[:100] + ordered[-100:] + ordered[100:-100]

    api, shelf = DemoAPI(settled(500), order=two_halves), Shelf()
    shelf.run(api)
    assert_equal(shelf, api.account)


# Servers that do not keep to the documentation.


@pytest.mark.parametrize(
    "api", [Clamping, Ragged, HasAlwaysMore, Shrinking, SaysTooMany, Growing, ListsOneTwice]
)
def test_a_server_that_errs_harmlessly_is_read_exactly(api: type[DemoAPI]) -> None:
    """Short pages, a total that is off, or a job listed twice lose nothing."""
    served, shelf = api(DemoAccount(800, every=MINUTE)), Shelf()
    for _ in range(4):
        shelf.run(served)
        there = {job["id"] for job in served.account.jobs}
        if api is ListsOneTwice:  # in place of another
            there.remove(served.account.jobs[1]["id"])
        assert there <= set(shelf.jobs)
        served.account.create()


def test_a_total_that_counts_too_many_leads_to_one_full_read() -> None:
    """A list that never has as many jobs as its total says is read twice, then as usual."""
    api, shelf = SaysTooMany(settled(800)), Shelf()
    requests = [shelf.run(api) for _ in range(5)]
    assert requests[2] > 8
    assert max(requests[3:]) <= 2
    assert len(shelf.jobs) == 800


@pytest.mark.parametrize("api", [OneByOne, SamePage])
def test_a_server_that_hides_jobs_is_an_error(api: type[DemoAPI]) -> None:
    """What can't be read exactly ends in an error, after a bounded number of requests."""
    served = api(settled(800))
    with pytest.raises(ResponseError, match="800 jobs, but its pages hold others or fewer"):
        Shelf().run(served)
    assert len(served.requests) < 600


def test_a_server_that_ignores_the_offset_is_an_error(warehouse: Warehouse, serve: Serve) -> None:
    """A page of another offset than was asked for is refused."""
    with pytest.raises(PipelineStepFailed, match="claims to be at offset 0"):
        warehouse.load(serve(IgnoresOffset(settled(300))))


# Movement.


@pytest.mark.slow
def test_a_first_load_of_a_busy_account_loses_nothing(warehouse: Warehouse, serve: Serve) -> None:
    """Creating, finishing and cancelling before each answer, four at a time, loses no job."""
    api = serve(DemoAccount(1500, every=MINUTE))
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


@BOTH_ORDERS
@pytest.mark.parametrize("size", [150, 1500])
def test_an_account_that_grows_with_each_request_is_read(order: Order, size: int) -> None:
    """The end of a list is found and reached although it moves on before each answer."""
    api, shelf = DemoAPI(settled(size), order=order), Shelf()
    there = {job["id"] for job in api.account.jobs}
    api.before_answer = lambda account: account.finish(account.create())
    shelf.run(api)
    assert there <= set(shelf.jobs)


@BOTH_ORDERS
def test_a_newest_page_that_is_outrun_ends_the_run(order: Order) -> None:
    """Where a page of jobs is created per request, the run ends with those it found first."""
    api, shelf = DemoAPI(settled(300), order=order), Shelf()
    there = {job["id"] for job in api.account.jobs}

    def create(account: DemoAccount) -> None:
        for _ in range(60 * (len(api.requests) < 4)):
            account.create()

    api.before_answer = create
    shelf.run(api)
    assert there <= set(shelf.jobs)
    shelf.run(api)
    assert_equal(shelf, api.account)


def test_what_is_created_during_a_run_waits_for_the_next_one() -> None:
    """A run ends with the job that was the newest at its start, so that its length is known."""
    api, shelf = DemoAPI(settled(500)), Shelf()

    def appear(account: DemoAccount) -> None:
        if len(api.requests) == 2:
            account.create(timedelta(hours=1))

    api.before_answer = appear
    shelf.run(api)
    assert len(shelf.jobs) == 500
    shelf.run(api)
    assert_equal(shelf, api.account)


def test_a_job_that_appears_behind_the_read_is_no_disorder() -> None:
    """When a full read comes short of a total that has changed meanwhile, the next one mends it."""
    api, shelf = DemoAPI(settled(500)), Shelf()
    old = api.account.jobs.pop(3)

    def appear(account: DemoAccount) -> None:
        if len(api.requests) == 5:
            account.jobs.insert(3, old)

    api.before_answer = appear
    shelf.run(api)
    assert len(shelf.jobs) == 499
    for _ in range(2):
        shelf.run(api)
    assert_equal(shelf, api.account)


@pytest.mark.parametrize("kill_after", [1, 2, 3, 7, 20])
def test_a_killed_run_is_continued(kill_after: int) -> None:
    """Killed after any batch, the next run is exact, and does not begin the first load anew."""
    api, shelf = DemoAPI(DemoAccount(2000, every=MINUTE)), Shelf()
    requests = shelf.run(api, kill_after=kill_after)
    loaded = len(shelf.jobs)
    api.account.finish(api.account.unfinished()[0])
    assert shelf.run(api) <= -(-(2000 - loaded) // 98) + 12
    assert requests < 40
    assert_equal(shelf, api.account)


# Settings that change what is read.


def test_a_status_filter_follows_jobs_in_and_out() -> None:
    """With a status, late entrants arrive, and what leaves it is updated a last time."""
    api, shelf = DemoAPI(settled(250)), Shelf()
    late, leaver = api.account.jobs[5], api.account.jobs[6]
    late.update(status="pending", results=None)
    leaver.update(status="processing", results=None)

    def load() -> dict[str, str]:
        shelf.run(api, status="processing")
        return {key: job["status"] for key, job in shelf.jobs.items()}

    assert load() == {leaver["id"]: "processing"}
    api.account.progress(late)
    api.account.finish(leaver)
    assert load() == {leaver["id"]: "completed", late["id"]: "processing"}
    api.account.finish(late, has_failed=True)
    api.account.finish(api.account.create())
    assert load() == {leaver["id"]: "completed", late["id"]: "failed"}
    assert not shelf.state["count_has_risen"]


def test_a_job_removed_in_another_status_is_not_recorded() -> None:
    """With a status, a job that was never in it is not among the removed ones."""
    api, shelf = DemoAPI(settled(250)), Shelf()
    gone, recorded = api.account.jobs[5:7]
    gone.update(status="pending", results=None)
    recorded.update(status="processing", results=None)
    shelf.run(api, status="processing")
    api.account.cancel(gone)
    api.account.cancel(recorded)
    shelf.run(api, status="processing")
    assert shelf.removed == [recorded["id"]]


@pytest.mark.slow
def test_each_status_has_its_own_cursor(warehouse: Warehouse, serve: Serve) -> None:
    """A run with a status does not hide older jobs from a run without one, or with another."""
    api = serve(DemoAccount(200, every=MINUTE))
    warehouse.load(api, status="failed")
    assert {status for (status,) in warehouse.rows("jobs", "status")} == {"failed"}
    warehouse.load(api, status="completed")
    warehouse.load(api)
    assert len(warehouse.rows("jobs", "id")) == 200


@pytest.mark.slow
def test_windows_tile_repeat_and_leave_the_cursor_alone(warehouse: Warehouse, serve: Serve) -> None:
    """Windows that touch load each job once; again, they bring changes; the cursor stays."""
    api = serve(DemoAccount(300, every=MINUTE))
    edge = api.account.jobs[150]["created_at"]
    old = api.account.jobs[99]
    warehouse.load(api, end_date=edge)
    assert len(warehouse.rows("jobs", "id")) == 150
    warehouse.load(api, start_date=edge, end_date="2027-01-01")
    assert len(warehouse.rows("jobs", "id")) == 300
    state = warehouse.pipeline.state["sources"]["convertly"]["resources"]["jobs"]
    assert set(state) <= {"incremental", "host"}
    api.account.finish(old)
    warehouse.load(api, end_date=edge)
    assert (old["id"], "completed") in warehouse.rows("jobs", "id", "status")
    assert warehouse.load(api) >= 3


@pytest.mark.slow
def test_a_window_that_was_broken_off_begins_again(warehouse: Warehouse, serve: Serve) -> None:
    """A window leaves nothing to be counted on, so all of its jobs are read the next time."""
    account = settled(2000)
    late = account.jobs.pop(100)
    api = serve(account)
    source = convertly_source(DEMO_KEY, api.url, end_date=account.jobs[1900]["created_at"])
    source.resources["jobs"].add_limit(3)
    warehouse.pipeline.run(source)
    assert 0 < len(warehouse.rows("jobs", "id")) < 1000
    account.jobs.insert(100, late)
    warehouse.load(api, end_date=account.jobs[1901]["created_at"])
    assert set(warehouse.rows("jobs", "id")) == {(job["id"],) for job in account.jobs[:1901]}


def test_a_start_date_is_where_the_first_run_begins() -> None:
    """With a start_date, older jobs are never loaded, nor missed."""
    api, shelf = DemoAPI(settled(2000)), Shelf()
    start = created_at(api.account.jobs[1900])
    shelf.run(api, window=None, start=start)
    assert len(shelf.jobs) == 100
    api.account.create()
    shelf.run(api, start=start)
    assert len(shelf.jobs) == 101
    assert shelf.last_run.held == shelf.last_run.listed == 2001
    later = created_at(api.account.jobs[-1])
    shelf.run(api, start=later)
    assert shelf.last_run.held == 2001
    assert not shelf.state["count_has_risen"]


@pytest.mark.parametrize("order", [newest_first, in_no_order])
def test_a_start_date_removes_no_older_job(order: Order) -> None:
    """An unfinished job is followed although it is older, also where the order is lost."""
    api, shelf = DemoAPI(settled(300), order=order), Shelf()
    old = api.account.jobs[5]
    old.update(status="pending", results=None)
    shelf.run(api)
    api.order = in_no_order
    start = created_at(api.account.jobs[100])
    shelf.run(api, start=start)
    assert not shelf.removed
    api.account.finish(old)
    shelf.run(api, start=start)
    assert_equal(shelf, api.account)
    assert shelf.handed_over == 1


def test_a_start_date_after_the_last_run_loses_nothing() -> None:
    """What was created between the last run and a start_date is loaded by a run without one."""
    api, shelf = DemoAPI(settled(10)), Shelf()
    shelf.run(api)
    for _ in range(20):
        api.account.finish(api.account.create(timedelta(hours=1)))
    shelf.run(api, start=created_at(api.account.jobs[20]))
    assert len(shelf.jobs) == 20
    shelf.run(api)
    assert_equal(shelf, api.account)
    assert shelf.run(api) == 1


@pytest.mark.parametrize("start", [BEGINNING, 1000])
@pytest.mark.parametrize("kill_after", [None, 3])
def test_an_earlier_start_date_is_where_reading_begins_again(
    start: Any, kill_after: int | None
) -> None:
    """Jobs that a start_date left out are loaded by the first run that asks for them, killed too.

    Later runs take one request again.
    """
    api, shelf = DemoAPI(settled(2000)), Shelf()
    first = api.account.jobs
    shelf.run(api, start=created_at(first[1900]))
    start = created_at(first[start]) if isinstance(start, int) else start
    shelf.run(api, start=start, kill_after=kill_after)
    shelf.run(api, start=start)
    assert {job["id"] for job in first if created_at(job) >= start} == set(shelf.jobs)
    assert shelf.run(api, start=start) == 1
    assert shelf.run(api, start=created_at(first[1900])) == 1


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
    assert len(warehouse.rows("jobs", "id")) == 1500


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
    assert len(warehouse.rows("jobs", "id")) == 1000


def test_the_demo_accounts_of_these_tests_are_of_the_past() -> None:
    """Jobs of the future would not move the cursor."""
    assert created_at(settled(10_000).jobs[-1]) < datetime.now(timezone.utc)
    assert DEMO_START < datetime.now(timezone.utc) < END
