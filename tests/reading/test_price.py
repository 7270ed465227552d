"""What a run costs, in requests of 100 jobs: never a function of the history."""

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from helpers.adversary import Pool
from helpers.lists import Planned, restless
from helpers.model import Direct, Shelf

from convertly_source.api.client import JobsClient, JobsPage
from convertly_source.demo import DEMO_START, DemoAccount, DemoAPI
from convertly_source.reading import pages

pytestmark = pytest.mark.no_cover
Order = Callable[[list[Any]], list[Any]]
MINUTE = timedelta(minutes=1)


def oldest_first(jobs: list[Any]) -> list[Any]:
    """List jobs as they were created, without the sorting of `helpers.lists`."""
    return jobs


def newest_first(jobs: list[Any]) -> list[Any]:
    """List the last one that was created first."""
    return jobs[::-1]


SLOW = partial(pytest.param, marks=pytest.mark.slow)
BOTH_ORDERS = pytest.mark.parametrize("order", [newest_first, oldest_first])


def settled(size: int) -> DemoAccount:
    """Make an account in which every job has ended, one created each minute."""
    account = DemoAccount(1)
    template = account.jobs.pop()
    account.finish(template)
    for number in range(size):
        account.jobs.append(account.create(MINUTE) | template | {"id": f"{number:05}"})
        account.jobs[-1]["created_at"] = account.jobs.pop(-2)["created_at"]
    return account


def shelve(api: DemoAPI) -> Shelf:
    """Load an account, in pages of 100."""
    shelf = Shelf()
    shelf.run(api)
    assert len(shelf.jobs) == len(api.account.jobs)
    return shelf


def reopen(account: DemoAccount, *numbers: int) -> None:
    """Make jobs unfinished, by their positions."""
    for number in numbers:
        account.jobs[number].update(status="processing", progress=50, results=None)


def finish_all(account: DemoAccount) -> None:
    """End all jobs."""
    for job in account.unfinished():
        account.finish(job)


def assert_equal(shelf: Shelf, account: DemoAccount) -> None:
    """Compare the jobs that were loaded with those of the account."""
    loaded = {key: (job["status"], job["progress"]) for key, job in shelf.jobs.items()}
    expected = {job["id"]: (job["status"], job["progress"]) for job in account.jobs}
    assert expected.items() <= loaded.items()


@BOTH_ORDERS
@pytest.mark.parametrize("size", [0, 1, 98, 100, 101, 3000, 10_000])
def test_a_full_load_takes_a_request_for_98_jobs_and_three(size: int, order: Order) -> None:
    """A first load of n jobs takes no more than ceil(n / 98) + 3 requests."""
    api, shelf = DemoAPI(settled(size), order=order), Shelf()
    assert shelf.run(api) <= -(-size // 98) + 3 + (order is oldest_first)
    assert_equal(shelf, api.account)


@BOTH_ORDERS
def test_nothing_new_and_nothing_open_takes_one_request(order: Order) -> None:
    """A run that finds nothing to do asks once, and hands nothing over."""
    api = DemoAPI(settled(2000), order=order)
    shelf = shelve(api)
    state = shelf.state
    assert shelf.run(api) == 1 + (order is oldest_first)
    assert shelf.handed_over == 0
    assert shelf.state == state


@BOTH_ORDERS
def test_jobs_that_stay_open_take_three_requests(order: Order) -> None:
    """Open jobs deep in the history cost the two lists of open jobs."""
    api = DemoAPI(settled(2000), order=order)
    reopen(api.account, 3, 700)
    shelf = shelve(api)
    state = shelf.state
    assert shelf.run(api) == 3 + (order is oldest_first)
    assert shelf.handed_over == 0
    assert shelf.state == state


@BOTH_ORDERS
@pytest.mark.parametrize(("is_open", "most"), [(False, 2), (True, 4)])
def test_thirty_new_jobs_take_two_requests(order: Order, most: int, *, is_open: bool) -> None:
    """30 new jobs take two requests, and two more when older ones are open."""
    api = DemoAPI(settled(2000), order=order)
    reopen(api.account, *[3] * is_open)
    shelf = shelve(api)
    for _ in range(30):
        api.account.create()
    assert shelf.run(api) <= most + (order is oldest_first)
    assert shelf.handed_over == 30


@BOTH_ORDERS
def test_two_old_jobs_that_finish_take_25_requests(order: Order) -> None:
    """Two jobs that end under 5,000 newer ones are found in 25 requests."""
    api = DemoAPI(settled(7000), order=order)
    reopen(api.account, 17, 1999)
    shelf = shelve(api)
    finish_all(api.account)
    assert shelf.run(api) <= 25
    assert_equal(shelf, api.account)


@pytest.mark.slow
@BOTH_ORDERS
def test_a_window_of_200_jobs_in_100_000_takes_30_requests(order: Order) -> None:
    """A window is found, not scanned, wherever it lies."""
    account, template = settled(1), settled(1).jobs[0]
    times = [DEMO_START + timedelta(minutes=number) for number in range(100_001)]
    account.jobs = [
        template | {"id": str(number), "created_at": time.isoformat()}
        for number, time in enumerate(times[:-1])
    ]
    api = DemoAPI(account, order=order)
    for first in (0, 31_415, 99_800):
        shelf = Shelf()
        assert shelf.run(api, window=(times[first], times[first + 200])) <= 30
        assert set(shelf.jobs) == {str(number) for number in range(first, first + 200)}


@BOTH_ORDERS
@pytest.mark.parametrize("rate", [1, SLOW(5), SLOW(11), SLOW(20), 40])
def test_a_first_load_while_jobs_are_created(order: Order, rate: int) -> None:
    """A first load of 10,000 jobs takes 130 requests while 1 to 40 are created per request."""
    api, shelf = DemoAPI(settled(10_000), order=order), Shelf()
    there = {job["id"] for job in api.account.jobs}
    api.before_answer = creating(rate)
    assert shelf.run(api) <= 130
    assert there <= set(shelf.jobs)


@BOTH_ORDERS
@pytest.mark.parametrize("rate", [1, SLOW(5), 20])
def test_a_first_load_while_the_oldest_are_purged(order: Order, rate: int) -> None:
    """A first load of 10,000 jobs takes 120 requests while 1 to 20 are purged per request."""
    api, shelf = DemoAPI(settled(10_000), order=order), Shelf()
    api.before_answer = purging(rate)
    assert shelf.run(api) <= 120
    assert {job["id"] for job in api.account.jobs} <= set(shelf.jobs)


@pytest.mark.parametrize("rate", [1, 20])
def test_requests_that_overtake_each_other_leave_few_gaps(
    rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When requests are answered out of order, a first load during a purge takes 114."""
    monkeypatch.setattr(pages, "ThreadPoolExecutor", Pool)
    for seed in range(8):
        api, shelf = DemoAPI(settled(10_000), order=oldest_first), Shelf()
        api.before_answer = purging(rate)
        monkeypatch.setattr(Pool, "rnd", random.Random(seed))
        assert shelf.run(api, client=cast("JobsClient", Overtaken(api))) <= 114
        assert {job["id"] for job in api.account.jobs} <= set(shelf.jobs)


@BOTH_ORDERS
@pytest.mark.parametrize("rate", [0, 1, SLOW(5), SLOW(11), SLOW(20), 40])
def test_an_old_job_that_finished_takes_10_requests(order: Order, rate: int) -> None:
    """The 17th of 7,000 jobs, when it ended, is found in 10 requests at any rate of creation."""
    api = DemoAPI(settled(7000), order=order)
    reopen(api.account, 16)
    shelf = shelve(api)
    job = api.account.jobs[16]
    api.account.finish(job)
    api.before_answer = creating(rate)
    assert shelf.run(api) <= 10
    assert shelf.jobs[job["id"]]["status"] == "completed"


@pytest.mark.slow
@BOTH_ORDERS
def test_jobs_that_finished_all_over_take_120_requests(order: Order) -> None:
    """100 jobs that ended all over 20,000 are found in 120 requests."""
    api = DemoAPI(settled(20_000), order=order)
    reopen(api.account, *range(50, 20_000, 200))
    shelf = shelve(api)
    finish_all(api.account)
    assert shelf.run(api) <= 120
    assert_equal(shelf, api.account)


@pytest.mark.parametrize(
    ("numbers", "most"), [(range(4000, 4400, 4), 10), (range(0, 6900, 30), 95)]
)
def test_finished_jobs_near_each_other_are_read_together(numbers: range, most: int) -> None:
    """Jobs that end near each other cost the pages that they stand on."""
    api = DemoAPI(settled(7000))
    reopen(api.account, *numbers)
    shelf = shelve(api)
    finish_all(api.account)
    assert shelf.run(api) <= most
    assert_equal(shelf, api.account)


@BOTH_ORDERS
def test_a_quiet_run_after_a_purge_takes_one_request(order: Order) -> None:
    """Where the oldest jobs were purged there is nothing to do, and no request to make for it."""
    api = DemoAPI(settled(3000), order=order)
    shelf = shelve(api)
    del api.account.jobs[:900]
    assert shelf.run(api) == 1 + (order is oldest_first)
    assert shelf.handed_over == 0
    assert shelf.last_run.held == shelf.last_run.listed == 2100


@pytest.mark.parametrize(("order", "most"), [(newest_first, 100), (oldest_first, 100)])
def test_a_group_of_5000_in_a_stable_order_takes_100_requests(order: Order, most: int) -> None:
    """5,000 jobs of one `created_at` in a stable order are read once."""
    assert read_a_group(DemoAPI(group_of(5000), order=order)) <= most


@pytest.mark.slow
def test_a_group_of_5000_in_a_new_order_takes_700_requests() -> None:
    """5,000 jobs of one `created_at` in a new order per request are all seen."""
    assert read_a_group(DemoAPI(group_of(5000), order=restless)) <= 700


@pytest.mark.slow
def test_a_group_of_5000_in_an_order_by_request_takes_700() -> None:
    """5,000 jobs of one `created_at`, in an order that follows from the request, are all seen."""
    assert read_a_group(Planned(group_of(5000))) <= 700


def group_of(size: int) -> DemoAccount:
    """Make an account with a bulk import in the middle."""
    account = settled(200)
    for gap in [timedelta(minutes=1), *[timedelta(0)] * (size - 1), *[timedelta(minutes=1)] * 200]:
        account.finish(account.create(gap))
    return account


def read_a_group(api: DemoAPI) -> int:
    """Load an account with a group in it; return the requests beside those of the other jobs."""
    shelf = Shelf()
    requests = shelf.run(api)
    assert set(shelf.jobs) == {job["id"] for job in api.account.jobs}
    return requests - 4


def creating(rate: int) -> Callable[[DemoAccount], None]:
    """Return what creates as many jobs before each answer."""

    def create(account: DemoAccount) -> None:
        for _ in range(rate):
            account.finish(account.create(timedelta(seconds=1)))

    return create


def purging(rate: int) -> Callable[[DemoAccount], None]:
    """Return what deletes as many of the oldest jobs before each answer."""

    def purge(account: DemoAccount) -> None:
        del account.jobs[:rate]

    return purge


class Overtaken(Direct):
    """A client whose requests overtake each other, on their way there and back."""

    def page(self, offset: int, limit: int, status: str | None = None) -> JobsPage:
        """Answer when some others were answered."""
        Pool.overtake()
        page = super().page(offset, limit, status)
        Pool.overtake()
        return page
