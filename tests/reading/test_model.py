"""An account lives, is loaded and fails; after each run the warehouse must equal the account.

One machine, two warehouses: a dictionary, for many examples, and DuckDB through dlt, over HTTP.
MODEL_EXAMPLES and WAREHOUSE_EXAMPLES set how many lives are tried.
"""

import os
from contextlib import ExitStack
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
    precondition,
    rule,
    run_state_machine_as_test,
)

from convertly_source.api.client import FINAL_STATUSES, Job
from convertly_source.demo import DemoAccount, DemoAPI, newest_first
from convertly_source.reading.job import END, ListedJob
from convertly_source.tables.records import RecordMapper, fingerprint

pytestmark = pytest.mark.no_cover
parse = ListedJob.parse
GAPS = [timedelta(seconds=seconds) for seconds in (0, 0, 0, 1, 60, 400, 10**6)]
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

    @rule(number=st.integers(0), what=st.sampled_from(["progress", "finish", "fail", "queue"]))
    def change(self, number: int, what: str) -> None:
        if unfinished := [job for job in self.account.unfinished() if parse(job).is_usable]:
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
        self.check()
        assert followed & self.gone <= set(self.shelf.removed)

    @rule(
        events=st.lists(
            st.tuples(
                st.sampled_from(["create", "change", "cancel", "purge", "delete", "burst"]),
                st.integers(0, 99),
            ),
            max_size=9,
        ),
        pause=st.integers(0, 3),
        kill_after=st.none() | st.integers(1, 5),
    )
    def run_while_it_moves(
        self, events: list[tuple[str, int]], pause: int, kill_after: int | None
    ) -> None:
        there = self.usable()
        moves, answers = iter(events), iter(range(10**9))

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

        self.api.before_answer = move
        self.shelf.run(self.api, kill_after, **self.options)
        self.api.before_answer = lambda _: None
        if kill_after is None:
            assert there & self.usable() <= set(self.shelf.content())

    @rule(kill_after=st.integers(1, 4))
    def run_and_kill(self, kill_after: int) -> None:
        self.shelf.run(self.api, kill_after, **self.options)

    @precondition(lambda self: any(parse(job).created_at for job in self.account.jobs))
    @rule(first=st.integers(0, 99), last=st.integers(0, 99))
    def run_window(self, first: int, last: int) -> None:
        ages = sorted({age for job in self.account.jobs if (age := parse(job).created_at)})
        start, end = sorted((ages[first % len(ages)], ages[last % len(ages)]))
        if start < end:
            self.shelf.run(self.api, window=(start, end), **self.options)
            present = {
                job["id"]: job
                for job in self.account.jobs
                if parse(job).is_usable and start <= (parse(job).created_at or END) < end
            }
            content = self.shelf.content()
            assert {key: content.get(key) for key in present} == self.expected(present)

    def usable(self) -> set[str]:
        return {job["id"] for job in self.account.jobs if parse(job).is_usable}

    def check(self) -> None:
        usable = {job["id"]: job for job in self.account.jobs if parse(job).is_usable}
        self.check_counts()
        content = self.shelf.content()
        assert {key: content.get(key) for key in usable} == self.expected(usable)
        assert set(content) - set(usable) <= self.gone
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
    """The same lives, loaded by dlt."""

    def make_shelf(self) -> Any:
        return DuckDB(self.stack.enter_context(TemporaryDirectory()))

    def check_counts(self) -> None:
        """Check nothing: what the run counted is not in the tables."""

    def expected(self, jobs: dict[str, Job]) -> dict[str, Any]:
        return {key: summary(job) for key, job in jobs.items()}


@pytest.mark.slow
def test_duckdb_equals_the_account() -> None:
    """After each run at rest, DuckDB holds the account, jobs and results."""
    examples = int(os.environ.get("WAREHOUSE_EXAMPLES", "2"))
    run_state_machine_as_test(
        DuckDBLife, settings=settings(RUNS, max_examples=examples, stateful_step_count=15)
    )


def test_the_shelf_equals_the_account() -> None:
    """After each run at rest, the dictionary holds the account, whatever happened before."""
    examples = int(os.environ.get("MODEL_EXAMPLES", "20"))
    run_state_machine_as_test(
        Life, settings=settings(RUNS, max_examples=examples, stateful_step_count=30)
    )
