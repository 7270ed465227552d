"""An account lives, is loaded and fails; after each run the warehouse must equal the account.

Two warehouses: a dictionary, for many examples, and DuckDB through dlt, over HTTP, which is also
verified. MODEL_EXAMPLES and WAREHOUSE_LIVES set how many lives are tried, WAREHOUSE_FIRST the seed
of the first one in DuckDB.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from helpers.lists import RESTLESS, in_no_order, oldest_first, restless
from helpers.model import DuckDB, Shelf, summary
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, Job
from convertly_source.demo import DemoAccount, DemoAPI, newest_first
from convertly_source.errors import UnavailableError
from convertly_source.reading.job import END, ListedJob
from convertly_source.settings import STATUSES
from convertly_source.tables.records import RecordMapper, fingerprint

pytestmark = pytest.mark.no_cover
parse = ListedJob.parse
GAPS = [timedelta(seconds=seconds) for seconds in (0, 0, 0, 1, 60, 400, 10**6)]
ENDS = ("progress", "finish", "fail", "queue")
EVENTS = ("create", "change", "cancel", "purge", "delete", "burst")
Event = tuple[str, int]
Step = Callable[[], None]
RUNS = settings(suppress_health_check=list(HealthCheck), print_blob=True)


class Life(RuleBasedStateMachine):
    """Random lives of an account, and runs of all kinds."""

    @initialize(
        page_size=st.integers(3, 9) | st.just(100),
        max_connections=st.integers(1, 3),
        order=st.sampled_from([newest_first, oldest_first, restless, in_no_order]),
        size=st.integers(0, 30) | st.just(250),
        seed=st.integers(0, 9),
    )
    def begin(self, page_size: int, max_connections: int, order: Any, size: int, seed: int) -> None:
        RESTLESS.seed(seed)
        self.stack = ExitStack()
        if order is in_no_order:  # with few ages it may look sorted, and is then read as if it were
            size += 12
        self.account = DemoAccount(size, seed, every=timedelta(minutes=10))
        self.api = self.stack.enter_context(DemoAPI(self.account, order=order).serve())
        self.options = {"page_size": page_size, "max_connections": max_connections}
        self.gone: set[str] = set()
        self.unseen: set[str] = set()  # changed or lost so that no ordinary run need see it
        self.shelf = self.make_shelf()

    def make_shelf(self) -> Any:
        return Shelf()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    # The account lives.

    @rule(gap=st.sampled_from(GAPS), count=st.integers(1, 12))
    def create(self, gap: timedelta, count: int) -> None:
        for _ in range(count):
            self.account.create(gap)

    @rule(count=st.integers(100, 300))
    def create_a_burst(self, count: int) -> None:
        for _ in range(count):
            self.account.finish(self.account.create(timedelta(milliseconds=20)))

    @rule(count=st.integers(2, 150))
    def import_many_at_once(self, count: int) -> None:
        self.account.create()
        for _ in range(count):
            self.account.finish(self.account.create(timedelta(0)))

    @rule(seconds=st.integers(0, 290), is_final=st.booleans())
    def become_visible_late(self, *, seconds: int, is_final: bool) -> None:
        late = self.account.create(timedelta(seconds=-seconds))
        self.account.create(timedelta(seconds=seconds))
        if is_final:
            self.account.finish(late)

    @rule(share=st.floats(0, 0.7))
    def purge(self, share: float) -> None:
        self.remove(self.account.jobs[: int(len(self.account.jobs) * share)])

    @rule(number=st.integers(0), count=st.integers(1, 3))
    def delete_ended(self, number: int, count: int) -> None:
        ended = [job for job in self.account.jobs if parse(job).is_final]
        self.remove(ended[number % (len(ended) or 1) :][:count])

    def remove(self, jobs: list[Job]) -> None:
        self.gone |= {job["id"] for job in jobs}
        gone = {id(job) for job in jobs}
        self.account.jobs = [job for job in self.account.jobs if id(job) not in gone]

    @rule(number=st.integers(0), what=st.sampled_from(ENDS))
    def change(self, number: int, what: str) -> None:
        followed = [job for job in self.account.unfinished() if job["id"] not in self.unseen]
        if unfinished := [job for job in followed if parse(job).is_usable]:
            job = unfinished[number % len(unfinished)]
            if what == "queue":
                job["status"] = "queued"  # a status that is not documented
            elif what == "progress":
                self.account.progress(job)
            else:
                self.account.finish(job, has_failed=what == "fail")

    @rule(number=st.integers(0))
    def cancel(self, number: int) -> None:
        if unfinished := self.account.unfinished():
            job = unfinished[number % len(unfinished)]
            self.account.cancel(job)
            self.gone.add(job["id"])

    @rule(field=st.sampled_from(["id", "created_at"]), gap=st.sampled_from(GAPS))
    def create_unusable(self, field: str, gap: timedelta) -> None:
        job = self.account.create(gap, error_message=f"unusable {len(self.account.jobs)}")
        if field == "id" or self.api.order is in_no_order:  # with few ages it may look sorted
            job["id"] = None
        else:
            job["created_at"] = "yesterday"

    # Runs.

    @rule()
    def run(self) -> None:
        tracked = self.shelf.state["tracked"].items()
        followed = {key for key, job in tracked if job[1] not in FINAL_STATUSES}
        self.shelf.run(self.api, **self.options)
        if self.shelf.state["count_has_risen"]:  # a job without a time has passed for an older one
            assert "yesterday" in {job["created_at"] for job in self.account.jobs}
            self.shelf.run(self.api, **self.options)
        self.check()
        assert followed & self.gone <= set(self.shelf.removed)

    @rule(
        events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 99)), max_size=9),
        pause=st.integers(0, 3),
        kill_after=st.none() | st.integers(1, 5),
    )
    def run_while_it_moves(self, events: list[Event], pause: int, kill_after: int | None) -> None:
        there = {*self.usable()} - self.unseen
        with self.moving(events, pause):
            try:
                self.shelf.run(self.api, kill_after, **self.options)
            except UnavailableError:
                # Without an order the list is one group, which may grow faster than it can be
                # read; while all jobs have one time, it shows none.
                assert self.api.order is in_no_order or self.showed_one_time
            else:
                if kill_after is None:
                    assert there & self.usable().keys() <= set(self.shelf.content())

    @contextmanager
    def moving(self, events: list[Event], pause: int) -> Iterator[None]:
        """Let the account live between answers."""
        moves, answers = iter(events), iter(range(10**9))
        self.showed_one_time = False

        def move(_: DemoAccount) -> None:
            if next(answers) % (pause + 1) == 0:
                what, number = next(moves, ("rest", 0))
                if what == "create":
                    self.create(GAPS[number % 5], 1 + number % 3)
                elif what == "change":
                    self.change(number, ["progress", "finish", "fail"][number % 3])
                elif what == "cancel":
                    self.cancel(number)
                elif what == "purge":
                    self.remove(self.account.jobs[: number % 20])
                elif what == "delete":
                    self.delete_ended(number, 1)
                elif what == "burst":
                    self.create_a_burst(number)
            times = {job["created_at"] for job in self.account.jobs} - {"yesterday"}
            self.showed_one_time |= len(times) <= 1

        self.api.before_answer = move
        yield
        self.api.before_answer = lambda _: None

    @rule(kill_after=st.integers(1, 4))
    def run_and_kill(self, kill_after: int) -> None:
        self.shelf.run(self.api, kill_after, **self.options)

    @rule(first=st.integers(0, 99), last=st.integers(0, 99))
    def run_window(self, first: int, last: int) -> None:
        ages = sorted({age for job in self.account.jobs if (age := parse(job).created_at)})
        if not ages:
            return
        start, end = sorted((ages[first % len(ages)], ages[last % len(ages)]))
        if start < end:
            self.shelf.run(self.api, window=(start, end), **self.options)
            present = {
                key
                for key, job in self.usable().items()
                if start <= (parse(job).created_at or END) < end
            }
            assert not present & self.different() - self.unseen

    def usable(self) -> dict[str, Job]:
        return {job["id"]: job for job in self.account.jobs if parse(job).is_usable}

    def different(self) -> set[str]:
        """Return the ids of jobs whose rows are missing, or not as they should be."""
        content = self.shelf.content()
        expected = self.expected(self.usable())
        return {key for key, row in expected.items() if content.get(key) != row}

    def check(self) -> None:
        self.check_counts()
        different = self.different()
        assert not different - self.unseen
        self.unseen = different
        assert set(self.shelf.content()) - set(self.usable()) <= self.gone
        assert len(set(self.shelf.removed)) == len(self.shelf.removed)
        assert set(self.shelf.removed) <= self.gone
        unusable = {fingerprint(job) for job in self.account.jobs if not parse(job).is_usable}
        assert unusable <= set(self.shelf.rejected)

    def check_counts(self) -> None:
        run = self.shelf.last_run
        assert run.held == run.listed == len(self.account.jobs)

    def expected(self, jobs: dict[str, Job]) -> dict[str, Any]:
        return {key: RecordMapper(str).job_record(parse(job)) for key, job in jobs.items()}


class DuckDBLife(Life):
    """Such a life, loaded by dlt and verified; also with what no ordinary run sees."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        chance = self.chance = random.Random(seed)
        orders = newest_first, newest_first, oldest_first, restless, in_no_order
        self.begin(
            page_size=chance.choice([5, 20, 100]),
            max_connections=chance.randint(1, 3),
            order=chance.choice(orders),
            size=chance.choice([0, 3, 30, 250]),
            seed=seed,
        )

    def live(self) -> None:
        """Be loaded in all ways; verify by counts, then all of it, if the list has an order."""
        self.run()
        self.take_steps(self.take_step)
        self.run_somehow()
        self.take_steps(self.take_step)
        self.run()
        if self.api.order is not in_no_order:
            for verify in (self.verify_while_it_moves, self.verify, self.verify_all):
                self.take_steps(self.differ)
                verify()
        self.take_steps(self.take_step)
        self.run()

    def take_steps(self, step: Step) -> None:
        """Let some things happen, or none."""
        for _ in range(self.chance.choice([0, 1, 2, 5, 10])):
            step()

    def take_step(self) -> None:
        """Let the account live."""
        chance = self.chance
        number, gap = chance.randrange(10**6), chance.choice(GAPS)
        steps: list[Step] = [
            lambda: self.create(gap, chance.randint(1, 12)),
            lambda: self.create_a_burst(chance.randint(100, 300)),
            lambda: self.import_many_at_once(chance.randint(2, 150)),
            lambda: self.become_visible_late(seconds=number % 290, is_final=number % 2 == 0),
            lambda: self.purge(chance.uniform(0, 0.7)),
            lambda: self.delete_ended(number, chance.randint(1, 3)),
            lambda: self.change(number, chance.choice(ENDS)),
            lambda: self.cancel(number),
            lambda: self.create_unusable(chance.choice(["id", "created_at"]), gap),
        ]
        chance.choice(steps)()

    def run_somehow(self) -> None:
        """Run a window, or be killed, or while the account moves."""
        chance, kill_after = self.chance, self.chance.randint(1, 4)
        runs: list[Step] = [
            lambda: self.run_and_kill(kill_after),
            lambda: self.run_window(chance.randrange(100), chance.randrange(100)),
            lambda: self.run_while_it_moves(self.events(), 1, chance.choice([None, kill_after])),
        ]
        chance.choice(runs)()

    def differ(self) -> None:
        """Let a job be deleted, end otherwise, open again or appear late, or rows be lost."""
        number = self.chance.randrange(10**6)
        changes: list[Step] = [
            lambda: self.delete_ended(number, 1),
            self.change_ended,
            self.change_ended,
            self.lose,
            self.become_visible_too_late,
            lambda: self.run_window(number % 100, number // 100 % 100),
        ]
        self.chance.choice(changes)()

    def change_ended(self) -> None:
        """Let a job that has ended end otherwise, or be open again; once until that is seen."""
        ended = [job for key, job in self.usable().items() if key not in self.unseen]
        if ended := [job for job in ended if parse(job).is_final]:
            job = self.chance.choice(ended)
            status = self.chance.choice(["other", "other", *OPEN_STATUSES])
            if status == "other":
                self.account.finish(job, has_failed=job["status"] == "completed")
            else:
                job |= {"status": status, "results": None, "completed_at": None}
            self.unseen.add(job["id"])

    def lose(self) -> None:
        """Lose rows of jobs in the warehouse."""
        if keys := sorted(self.shelf.content()):
            at = self.chance.randrange(len(keys))
            lost = keys[at : at + self.chance.choice([1, 2, 100])]
            self.shelf.delete(lost)
            self.unseen |= {*lost}

    def become_visible_too_late(self) -> None:
        """Let a job appear later than ordinary runs look for it."""
        span = timedelta(minutes=self.chance.randint(6, 9999))
        self.unseen.add(self.account.create(-span)["id"])
        self.account.create(span)

    def events(self) -> list[Event]:
        """Draw what happens to the account while a run reads it."""
        return [(self.chance.choice(EVENTS), self.chance.randrange(100)) for _ in range(9)]

    def verify(self) -> None:
        """Compare counts: what is left cancels in each status, and the rest is equal."""
        self.shelf.verify(self.api, read_all=False, **self.options)
        missing, surplus = self.differences()
        rest = Counter(status for _, status in missing)
        rest.subtract(status for _, status in surplus)
        assert not any(rest[status] for status in STATUSES)
        assert not sum(rest.values())
        assert self.different() == {key for key, _ in missing} & self.usable().keys()
        self.check()

    def verify_all(self) -> None:
        """Compare all jobs: nothing is left."""
        self.shelf.verify(self.api, read_all=True, **self.options)
        assert self.differences() == (set(), set())
        self.unseen.clear()
        self.check()

    def verify_while_it_moves(self) -> None:
        """No living job is removed, and none that was held is lost."""
        there = {*self.usable()} - self.unseen
        with self.moving(self.events(), 1):
            read_all = self.chance.random() < 0.5
            self.shelf.verify(self.api, read_all=read_all, **self.options)
        assert set(self.shelf.removed) <= self.gone
        assert there & self.usable().keys() <= set(self.shelf.content())

    def make_shelf(self) -> Any:
        return DuckDB(self.stack.enter_context(TemporaryDirectory()))

    def check_counts(self) -> None:
        """Check nothing: what the run counted is not in the tables."""

    def expected(self, jobs: dict[str, Job]) -> dict[str, Any]:
        return {key: summary(job) for key, job in jobs.items()}

    def differences(self) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """Return what is listed and not held, and held and not listed, each with its status."""
        listed = {
            (job["id"] if parse(job).is_usable else fingerprint(job), job["status"])
            for job in self.account.jobs
        }
        held = self.shelf.held()
        return listed - held, held - listed


@pytest.mark.slow
def test_duckdb_equals_the_account() -> None:
    """After each run at rest, DuckDB holds the account; verify sees what ordinary runs don't."""
    first = int(os.environ.get("WAREHOUSE_FIRST", "0"))
    for seed in range(first, first + int(os.environ.get("WAREHOUSE_LIVES", "1"))):
        life = DuckDBLife(seed)
        print("Life", seed)  # shown if it fails
        with life.stack:
            life.live()


def test_the_shelf_equals_the_account() -> None:
    """After each run at rest, the dictionary holds the account, whatever happened before."""
    examples = int(os.environ.get("MODEL_EXAMPLES", "20"))
    run_state_machine_as_test(
        Life, settings=settings(RUNS, max_examples=examples, stateful_step_count=30)
    )
