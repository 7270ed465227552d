"""A comparison by counts and pages finds what differs, cheaply, and removes no living job.

VERIFY_LIVES sets how many lives of each kind are tried, VERIFY_FIRST the first of them.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from helpers.adversary import Account, Pool, Server, World
from helpers.lists import SaysTooMany, old_page_swapped, oldest_first, restless
from helpers.model import Direct
from helpers.rows import MINUTE, Rows, ended, listed

from convertly_source.demo import DEMO_START, DemoAccount, DemoAPI, newest_first
from convertly_source.errors import ResponseError, SettingsError, UnavailableError
from convertly_source.reading import pages
from convertly_source.reading.job import BEGINNING
from convertly_source.reading.listing import Listing

Change = Callable[[Rows, DemoAccount, random.Random], None]
Order = Callable[[list[Any]], list[Any]]
FIRST = int(os.environ.get("VERIFY_FIRST", "0"))
STATUSES = ("pending", "processing", "failed", "completed")
OTHER = {"completed": "failed", "failed": "completed"}


def reverse(jobs: list[Any]) -> list[Any]:
    """List the youngest job first, without the sorting of the demo account."""
    return jobs[::-1]


def as_created(jobs: list[Any]) -> list[Any]:
    """List jobs as they were created."""
    return jobs


BOTH_ORDERS = pytest.mark.parametrize("order", [reverse, as_created])


def lose(rows: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Lose a row in the warehouse."""
    rows.held.pop(chance.choice(account.jobs)["id"], None)


def delete(_: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Delete a job that has ended."""
    account.jobs.remove(chance.choice(account.jobs))


def change(_: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Change the status of a job that has ended."""
    job = chance.choice(account.jobs)
    job["status"] = chance.choice([status for status in STATUSES if status != job["status"]])


def appear_late(_: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Let a job appear long after it was created."""
    at = chance.randrange(len(account.jobs))
    key = f"late {chance.random()}"
    account.jobs.insert(at, account.jobs[at] | {"id": key, "status": chance.choice(STATUSES)})


def purge(_: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Purge some of the oldest jobs, rarely."""
    if chance.random() < 0.3:
        del account.jobs[: chance.randrange(len(account.jobs))]


def lose_some(rows: Rows, account: DemoAccount, chance: random.Random) -> None:
    """Lose rows that stand together, rarely."""
    if chance.random() < 0.3:
        at = chance.randrange(len(account.jobs))
        for job in account.jobs[at : at + 30]:
            rows.held.pop(job["id"], None)


CHANGES: tuple[Change, ...] = (lose, delete, change, appear_late, purge, lose_some)


def assert_equal(rows: Rows, account: DemoAccount) -> None:
    """Compare; no job of the account is recorded as removed."""
    assert rows.statuses() == listed(account)
    assert not rows.removed & {*listed(account)}


def assert_mended(
    api: DemoAPI, rows: Rows, requests: int, *, loaded: int = 0, removed: int = 0
) -> None:
    """Verify within some requests; the next run has nothing to do."""
    before = len(api.requests)
    result = rows.verify().result()
    assert len(api.requests) - before <= requests + (api.order is as_created)
    count = len(api.account.jobs)
    assert result[:4] == (count, count, loaded, removed)
    assert_equal(rows, api.account)
    before = len(api.requests)
    rows.load()
    assert len(api.requests) - before == 1 + (api.order is as_created and count > 98)
    assert not rows.count_has_risen


@BOTH_ORDERS
@pytest.mark.parametrize("size", [0, 1, 100, 294, 1000, 5000])
def test_an_equal_account_takes_8_requests(size: int, order: Order) -> None:
    """Where nothing differs, requests don't follow the size."""
    api = DemoAPI(ended(size, random.Random(0)), order=order)
    assert_mended(api, Rows.of(api), 8)


@pytest.mark.no_cover
@pytest.mark.parametrize("made", ["lost", "deleted", "changed", "late"])
@BOTH_ORDERS
@pytest.mark.parametrize("position", [0, 5000, 9990])
def test_one_difference_takes_60_requests(made: str, position: int, order: Order) -> None:
    """A single difference among 10,000 jobs is found and mended, wherever it is."""
    api = DemoAPI(ended(10_000, random.Random(0)), order=order)
    rows, job = Rows.of(api), api.account.jobs[position]
    if made == "lost":
        del rows.held[job["id"]]
    elif made == "deleted":
        api.account.jobs.remove(job)
    elif made == "changed":
        job["status"] = OTHER[job["status"]]
    else:
        api.account.jobs.insert(position, job | {"id": "late"})
    gone = int(made == "deleted")
    assert_mended(api, rows, 60, loaded=1 - gone, removed=gone)
    assert rows.removed == {job["id"]} if gone else not rows.removed


@BOTH_ORDERS
def test_a_purge_of_half_takes_10_requests(order: Order) -> None:
    """The oldest page shows that all older jobs are gone."""
    api = DemoAPI(ended(5000, random.Random(0)), order=order)
    rows = Rows.of(api)
    del api.account.jobs[:2500]
    assert_mended(api, rows, 10, removed=2500)


@BOTH_ORDERS
def test_an_account_that_was_emptied_is_removed(order: Order) -> None:
    """A list that is empty shows that all jobs are gone."""
    api = DemoAPI(ended(250, random.Random(0)), order=order)
    rows = Rows.of(api)
    api.account.jobs.clear()
    assert_mended(api, rows, 12, removed=250)


@pytest.mark.slow
@BOTH_ORDERS
@pytest.mark.parametrize(("differences", "requests"), [(0, 8), (1, 60), (20, 400)])
def test_prices_in_a_large_account(order: Order, differences: int, requests: int) -> None:
    """One difference takes 60 requests, 20 of all kinds 400; the benchmark has 200,000 jobs."""
    chance = random.Random(1)
    api = DemoAPI(ended(20_000, chance), order=order)
    rows = Rows.of(api)
    for number in range(differences):
        CHANGES[number % 4](rows, api.account, chance)
    before = len(api.requests)
    rows.verify()
    assert len(api.requests) - before <= requests + (order is as_created)
    assert_equal(rows, api.account)


@pytest.mark.parametrize(("size", "most"), [(2500, 0), (1000, 7)])
@BOTH_ORDERS
def test_it_never_costs_more_than_a_read_and_a_half(order: Order, size: int, most: int) -> None:
    """With many differences everything is read; below 2,000 jobs 12 requests go before."""
    api = DemoAPI(ended(size, random.Random(0)), order=order)
    rows = Rows.of(api)
    for key in [*rows.held][::7]:
        del rows.held[key]
    before = len(api.requests)
    rows.verify()
    assert len(api.requests) - before <= 1.5 * (-(-size // 98) + 4) + most
    assert_equal(rows, api.account)


@BOTH_ORDERS
def test_all_is_read_when_it_is_asked_for(order: Order) -> None:
    """Reading everything finds a lost row and a deleted neighbour, which cancel in every count."""
    api = DemoAPI(ended(5000, random.Random(0)), order=order)
    rows = Rows.of(api)
    for job in api.account.jobs[2000:2002]:
        job["status"] = "completed"
    rows.verify(read_all=True)
    del rows.held[api.account.jobs[2000]["id"]]
    del api.account.jobs[2001]
    before = len(api.requests)
    run = rows.verify(read_all=True)
    assert (run.loaded_again, run.found_removed) == (1, 1)
    assert len(api.requests) - before <= -(-5000 // 98) + 6
    assert_equal(rows, api.account)


def group_of(size: int) -> DemoAccount:
    """Make an account with a bulk import of one `created_at` in the middle."""
    gaps = iter([MINUTE] * 500 + [timedelta(0)] * (size - 1) + [MINUTE] * 500)
    return ended(999 + size, random.Random(0), gaps.__next__)


@pytest.mark.parametrize("order", [newest_first, oldest_first, restless])
@pytest.mark.parametrize("read_all", [False, True])
@pytest.mark.parametrize("size", [100, 101, 300])
def test_a_group_of_one_time_is_compared(order: Order, size: int, *, read_all: bool) -> None:
    """Jobs of one `created_at` that fill pages are compared as a whole, in any order."""
    api = DemoAPI(group_of(size), order=order)
    rows = Rows.of(api)
    first, *_, last = [job for job in api.account.jobs if job["id"] >= "0000500"][:size]
    del rows.held[first["id"]]
    first["status"] = OTHER[first["status"]]
    api.account.jobs.remove(last)
    run = rows.verify(read_all=read_all)
    assert (run.loaded_again, run.found_removed) == (1, 1)
    assert_equal(rows, api.account)


def test_a_reopened_job_of_a_group_is_found() -> None:
    """The list of its status shows it alone; among all jobs it is one of 300 of one time."""
    api = DemoAPI(group_of(300))
    rows = Rows.of(api)
    api.account.jobs[650]["status"] = "pending"
    assert rows.verify().loaded_again == 1
    assert_equal(rows, api.account)


def test_an_equal_group_takes_four_more_requests() -> None:
    """A bulk import that is equal on both sides is not read."""
    api = DemoAPI(group_of(3000))
    rows = Rows.of(api)
    for seed in range(10):
        before = len(api.requests)
        rows.verify(seed=seed)
        assert len(api.requests) - before <= 8 + 2 * 7


def test_a_list_of_one_time_is_compared() -> None:
    """An account in which all jobs have one `created_at` shows no order, and is compared."""
    api = DemoAPI(ended(700, random.Random(0), lambda: timedelta(0)))
    rows = Rows.of(api)
    del rows.held["0000300"]
    rows.verify()
    assert_equal(rows, api.account)


@pytest.mark.parametrize("order", [old_page_swapped, None])
@pytest.mark.parametrize("read_all", [False, True])
def test_a_list_without_order_is_refused(order: Order | None, *, read_all: bool) -> None:
    """Positions tell nothing there, whether the first page shows it or a later one."""
    api = DemoAPI(ended(400, random.Random(0)))
    rows = Rows.of(api)
    chance = random.Random(0)
    api.order = order or (lambda jobs: chance.sample(jobs, len(jobs)))
    lose(rows, api.account, chance)
    with pytest.raises(SettingsError, match="in no order"):
        rows.verify(read_all=read_all)
    assert not rows.removed


@pytest.mark.parametrize("kill_after", [1, 3, 5])
@pytest.mark.parametrize("start", [BEGINNING, DEMO_START + 500 * MINUTE])
def test_a_killed_verify_forgets_no_reason_for_it(start: datetime, kill_after: int) -> None:
    """Jobs that are late, or were left out, are found by the next run if a verify was killed."""
    api = DemoAPI(ended(1000, random.Random(0)))
    rows = Rows(Direct(api))
    rows.load(start)
    late = api.account.jobs[700] | {"id": "late"}
    api.account.jobs.insert(700, late)
    rows.load(start)
    assert rows.count_has_risen
    rows.verify(kill_after=kill_after)
    rows.load()
    assert_equal(rows, api.account)


def test_an_account_that_lists_fewer_than_it_says_fails() -> None:
    """At rest, a number of jobs that never matches is an undocumented answer."""
    api = SaysTooMany(ended(700, random.Random(0)))
    run = Rows.of(api).verify()
    with pytest.raises(ResponseError, match="there are 740 jobs, and lists 700"):
        run.check()


def test_a_job_listed_twice_counts_as_held() -> None:
    """An id at two positions has one row: verify ends, and says that both are held."""
    api = DemoAPI(ended(700, random.Random(0)))
    rows = Rows.of(api)
    api.account.jobs.insert(300, dict(api.account.jobs[300]))
    result = rows.verify().result()
    assert result[:4] == (701, 701, 0, 0)


def test_what_the_looks_leave_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account at rest whose count differs after all looks is read whole."""
    monkeypatch.setattr("convertly_source.loading.comparison.MAX_LOOKS", 0)
    api = DemoAPI(ended(2000, random.Random(0)))
    rows = Rows.of(api)
    del rows.held["0000700"]
    rows.verify()
    assert_equal(rows, api.account)


@BOTH_ORDERS
def test_an_account_that_begins_to_grow(order: Order) -> None:
    """A list that was too short to show its order is compared as it was."""
    api = DemoAPI(ended(1, random.Random(0)), order=order)
    rows = Rows.of(api)
    rows.held.clear()
    account = api.account

    def create(_: DemoAccount) -> None:
        if len(api.requests) > 2:
            account.jobs += ended(250, random.Random(0)).jobs[len(account.jobs) :]

    api.before_answer = create
    rows.verify()
    assert rows.held.keys() == {"0000000"}


@BOTH_ORDERS
def test_a_status_that_no_job_has_any_more(order: Order) -> None:
    """A list of one status that has become empty shows nothing; its jobs are found elsewhere."""
    api = DemoAPI(ended(6000, random.Random(0)), order=order)
    rows = Rows.of(api)
    for job in api.account.jobs:
        job["status"] = "completed"
    rows.verify()
    assert_equal(rows, api.account)


def test_a_removed_job_that_comes_back_at_once_is_loaded() -> None:
    """An ended job that vanished is not remembered as known: listed again, it is news."""
    api = DemoAPI(ended(300, random.Random(0)))
    rows = Rows.of(api)
    job = api.account.jobs.pop(-2)
    rows.verify()
    assert rows.removed == {job["id"]}
    api.account.jobs.insert(-1, job)
    rows.load()
    assert_equal(rows, api.account)


@pytest.mark.parametrize("read_all", [False, True])
@BOTH_ORDERS
def test_jobs_created_meanwhile_wait_for_the_next_run(order: Order, *, read_all: bool) -> None:
    """It compares up to the newest job at its start."""
    api = DemoAPI(ended(1000, random.Random(0)), order=order)
    rows = Rows.of(api)
    account = api.account

    def create(_: DemoAccount) -> None:
        number = len(account.jobs)
        created_at = (DEMO_START + (number + 1) * MINUTE).isoformat()
        account.jobs.append(account.jobs[-1] | {"id": f"new {number}", "created_at": created_at})

    api.before_answer = create
    run = rows.verify(read_all=read_all)
    assert (run.loaded_again, run.found_removed) == (0, 0)
    api.before_answer = lambda _: None
    rows.load()
    assert_equal(rows, account)


def test_a_group_that_hides_a_job_once_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A living job of a group is not removed because one reading, as of a replica, lacks it."""
    gaps = iter([MINUTE] * 20 + [timedelta(0)] * 29 + [MINUTE] * 21)
    api = DemoAPI(ended(70, random.Random(0), gaps.__next__))
    rows = Rows.of(api, 10)
    hidden = api.account.jobs.pop(30)
    readings = 0
    read = Listing.read

    def counted(listing: Listing, *arguments: Any) -> Iterator[Any]:
        nonlocal readings
        yield from read(listing, *arguments)
        readings += 1
        if readings == 3:  # that of the ordinary run, of all jobs, and the first of the group
            api.account.jobs.insert(30, hidden)

    monkeypatch.setattr(Listing, "read", counted)
    rows.verify(read_all=True)
    assert readings == 4
    assert_equal(rows, api.account)


@pytest.mark.slow
def test_what_is_found_leads_to_a_closer_look() -> None:
    """Two differences that cancel are mostly found if there is a third one anywhere."""
    found = 0
    for seed in range(6):
        api = DemoAPI(ended(10_000, random.Random(0)), order=reverse)
        rows = Rows.of(api)
        for job in api.account.jobs[4000:4700]:
            job["status"] = "completed"
        rows.verify(read_all=True)
        del rows.held[api.account.jobs[9000]["id"]]
        del rows.held[api.account.jobs[4000]["id"]]
        del api.account.jobs[4699]
        rows.verify(seed=seed)
        found += rows.statuses() == listed(api.account)
    assert found >= 4


def test_an_account_that_keeps_changing_is_left_after_some_looks() -> None:
    """Each look finds what has changed since the one before: there are four at most."""
    api = DemoAPI(ended(3000, random.Random(0)), order=reverse)
    rows = Rows.of(api, 6)
    chance = random.Random(0)

    def live(account: DemoAccount) -> None:
        if len(api.requests) % 20 == 0:
            job = chance.choice(account.jobs)
            job["status"] = OTHER[job["status"]]

    api.before_answer = live
    before = len(api.requests)
    rows.verify()
    assert len(api.requests) - before < 3000 / 4


class Life:
    """An account that was loaded, and what happened since that no ordinary run sees."""

    def __init__(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        self.page_size = chance.choice([5, 6, 8, 10, 12, 100])
        sizes = (100, 600, 1500) if self.page_size == 100 else (0, 3, 20, 60, 150)
        equal = chance.choice([0, 0.3, 0.9])
        gaps = [timedelta(seconds=1), MINUTE, 7 * MINUTE]
        account = ended(
            chance.choice(sizes),
            chance,
            lambda: timedelta(0) if chance.random() < equal else chance.choice(gaps),
        )
        for job in account.jobs:
            if chance.random() < 0.05:
                job["status"] = chance.choice(["pending", "processing", "archived"])
        self.api = DemoAPI(account, order=chance.choice([newest_first, oldest_first, restless]))
        self.rows = Rows.of(self.api, self.page_size)
        for _ in range(chance.choice([0, 1, 2, 3, 8, 20])):
            if account.jobs:
                chance.choice(CHANGES)(self.rows, account, chance)

    def rest(self) -> Counter[str]:
        """Count what is still missing, less what is too much, by status."""
        held, wanted = self.rows.statuses().items(), listed(self.api.account).items()
        rest = Counter(status for _, status in wanted - held)
        rest.subtract(Counter(status for _, status in held - wanted))
        return rest

    @property
    def is_equal(self) -> bool:
        """Whether the rows are the account."""
        return self.rows.statuses() == listed(self.api.account)


def lives(count: int) -> Iterator[int]:
    """Yield the seeds of the lives to try."""
    yield from range(FIRST, FIRST + int(os.environ.get("VERIFY_LIVES", count)))


@pytest.mark.slow
def test_every_life_is_mended_but_for_what_cancels() -> None:
    """Lost, deleted, changed, late and purged jobs: what is left cancels in each status.

    Reading everything leaves nothing, and no living job is ever recorded as removed.
    """
    for seed in lives(150):
        life = Life(seed)
        life.rows.verify(seed=seed)
        assert not life.rows.removed & {*listed(life.api.account)}, seed
        rest = life.rest()
        assert not any(rest[status] for status in STATUSES), seed
        assert not sum(rest.values()), seed
        if not life.is_equal:
            life.rows.verify(read_all=True)
        assert_equal(life.rows, life.api.account)
        life.rows.load()
        assert not life.rows.count_has_risen, seed


@pytest.mark.no_cover
def test_every_life_is_mended_by_reading_everything() -> None:
    """Nothing is left, whatever happened before."""
    for seed in lives(150):
        life = Life(seed)
        run = life.rows.verify(read_all=True)
        assert_equal(life.rows, life.api.account)
        count = len(life.api.account.jobs)
        assert run.result()[:2] == (count, count)


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("world", ["base", "mild", "stable", "ties", "purge", "deletes", "mild100"])
def test_no_living_job_is_removed_while_it_moves(
    world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs come, end and go between any two requests: none that is there counts as removed.

    Once the account is at rest, all is equal after everything was read.
    """
    monkeypatch.setattr(pages, "ThreadPoolExecutor", Pool)
    for seed in lives(8):
        chance = random.Random(f"{world} {seed}")
        Pool.rnd = random.Random(seed)
        manners = World.named(world, chance)
        manners.delete = chance.choice([manners.delete, 0.5])
        account = Account(manners, chance)
        server = Server(account)
        server.most_moves = 1000
        rows = Rows(server, manners.page_size)
        rows.load()
        for _ in range(chance.choice([0, 5, 30])):
            account.tick += 1
            account.move()
        for key in [key for key in rows.held if chance.random() < 0.02]:
            del rows.held[key]
        for read_all in (False, True):
            server.is_moving, server.requests = True, 0
            try:
                rows.verify(read_all=read_all, seed=seed)
            except UnavailableError:
                continue
            assert not rows.removed & account.jobs.by_id.keys(), (seed, read_all)
        server.is_moving = False
        rows.load()
        rows.verify(read_all=True)
        assert rows.statuses() == {key: job["status"] for key, job in account.jobs.by_id.items()}
