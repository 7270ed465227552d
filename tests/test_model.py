"""An account lives, is loaded and fails; after each run the warehouse must equal the account.

One machine, two warehouses: a dictionary, for many examples, and DuckDB through dlt. Both read
over HTTP. MODEL_EXAMPLES and WAREHOUSE_EXAMPLES set how many lives are tried.
"""

import os
from collections import defaultdict
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conftest import Warehouse
from dlt.common.json import json as dlt_json
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lists import RESTLESS, in_no_order, oldest_first, restless

from convertly_source import convertly_source
from convertly_source.client import Job, JobsClient
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, newest_first
from convertly_source.jobs import Memory, Run, new_memory
from convertly_source.listing import Listing
from convertly_source.pages import BEGINNING, END
from convertly_source.results import FINAL_STATUSES, Shape, fingerprint, row

GAPS = [timedelta(seconds=seconds) for seconds in (0, 0, 0, 1, 60, 400, 10**6)]
RUNS = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


class Shelf:
    """A warehouse in a dictionary. What is loaded in it goes through JSON, as dlt's state does."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.removed: list[str] = []
        self.rejected: list[str] = []
        self.memory = new_memory()

    def run(self, api: DemoAPI, kill_after: int | None = None, **options: Any) -> None:
        """Load; when killed after some batches, those are loaded and the rest is not read."""
        client = JobsClient(DEMO_KEY, api.url, max_connections=options["max_connections"])
        window = options.get("window", (BEGINNING, END))
        memory = new_memory() if "window" in options else self.memory
        listing = Listing(client, options["page_size"], options["max_connections"])
        run = Run(listing, Shape(str).job_record, None, memory, window)
        for number, batch in enumerate(run.batches, 1):
            for record in batch.rows:
                if batch.table == "jobs":
                    self.jobs[record["id"]] = record
                elif batch.table == "removed_jobs":
                    self.removed.append(record["id"])
                else:
                    self.rejected.append(record["fingerprint"])
            if "window" not in options:
                stored: Memory = dlt_json.typed_loadb(dlt_json.typed_dumpb(run.memory))
                self.memory = stored
            if number == kill_after:
                break

    def content(self) -> dict[str, Any]:
        """Return the jobs, by id."""
        return self.jobs


class DuckDB:
    """A warehouse in DuckDB, loaded by dlt in chunks of three batches."""

    def __init__(self, folder: str) -> None:
        self._warehouse = Warehouse(Path(folder), folder)

    def run(self, api: DemoAPI, kill_after: int | None = None, **options: Any) -> None:
        """Load; when killed after some batches, those are loaded and the rest is not read."""
        if "window" in options:
            start, end = options.pop("window")
            options |= {"start_date": start, "end_date": end}
        source = convertly_source(DEMO_KEY, api.url, **options)
        jobs = source.resources["jobs"].add_limit(kill_after or 3)
        jobs.custom_metrics["is_complete"] = False
        while not jobs.custom_metrics["is_complete"]:
            self._warehouse.pipeline.run(source)
            if kill_after:
                break

    @property
    def memory(self) -> Any:
        """What is remembered for the next run."""
        state: Any = self._warehouse.pipeline.state
        for key in ("sources", "convertly", "resources", "jobs", "any status"):
            state = state.get(key, {})
        return state or new_memory()

    @property
    def removed(self) -> list[str]:
        """The ids of removed_jobs."""
        return [key for (key,) in self._warehouse.rows("removed_jobs", "id")]

    @property
    def rejected(self) -> list[str]:
        """The fingerprints of rejected_jobs."""
        return [key for (key,) in self._warehouse.rows("rejected_jobs", "fingerprint")]

    def content(self) -> dict[str, Any]:
        """Return what is told of each job by `summary`, by id."""
        results = defaultdict[str, list[Any]](list)
        for key, _, *item in self._warehouse.rows(
            "jobs__results", "job_id", "_dlt_list_idx", "filename", "value"
        ):
            results[key].append(tuple(item))
        columns = ("id", "status", "progress", "completed_files", "error_message", "created_at")
        return {
            key: (*fields, results[key]) for key, *fields in self._warehouse.rows("jobs", *columns)
        }


def summary(job: Job) -> tuple[Any, ...]:
    """Tell of a job of the demo account what its rows must say, without the code under test."""
    results = job["results"] if job["status"] in ("completed", "failed") else None
    if isinstance(results, dict):
        results = results.get("files") or ([results.get("file") or results] if results else [])
    items = [item if isinstance(item, dict) else {"value": item} for item in results or []]
    texts = [
        (item.get("filename"), item["value"].split("?")[0] if "value" in item else None)
        for item in items
    ]
    created_at = datetime.fromisoformat(job["created_at"].replace("Z", "+00:00"))
    fields = [job[name] for name in ("status", "progress", "completed_files", "error_message")]
    return (*fields, created_at, texts)


class Life(RuleBasedStateMachine):
    """Random lives of an account, and runs of all kinds."""

    @initialize(
        page_size=st.integers(3, 9),
        max_connections=st.integers(1, 3),
        order=st.sampled_from([newest_first, oldest_first, restless, in_no_order]),
        size=st.integers(0, 30),
        seed=st.integers(0, 9),
    )
    def begin(self, page_size: int, max_connections: int, order: Any, size: int, seed: int) -> None:
        RESTLESS.seed(seed)
        self.stack = ExitStack()
        if order is in_no_order:  # with few ages it may look sorted, and is then read as if it were
            size += 12
        self.account = DemoAccount(size, seed)
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

    @rule(age=st.integers(0, 290), is_final=st.booleans())
    def become_visible_late(self, *, age: int, is_final: bool) -> None:
        late = self.account.create(timedelta(seconds=-age))
        self.account.create(timedelta(seconds=age))
        if is_final:
            self.account.finish(late)

    @rule(number=st.integers(0), what=st.sampled_from(["progress", "finish", "fail", "queue"]))
    def change(self, number: int, what: str) -> None:
        if unfinished := [job for job in self.account.unfinished() if row(job).is_usable]:
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
        known = self.shelf.memory["known"].items()
        followed = {key for key, (_, status, _) in known if status not in FINAL_STATUSES}
        self.shelf.run(self.api, **self.options)
        self.check()
        assert followed & self.gone <= set(self.shelf.removed)

    @rule(
        events=st.lists(
            st.tuples(st.sampled_from(["create", "change", "cancel"]), st.integers(0, 99)),
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

        self.api.before_answer = move
        self.shelf.run(self.api, kill_after, **self.options)
        self.api.before_answer = lambda _: None
        if kill_after is None:
            assert there & self.usable() <= set(self.shelf.content())

    @rule(kill_after=st.integers(1, 4))
    def run_and_kill(self, kill_after: int) -> None:
        self.shelf.run(self.api, kill_after, **self.options)

    @precondition(lambda self: any(row(job).created_at for job in self.account.jobs))
    @rule(first=st.integers(0, 99), last=st.integers(0, 99))
    def run_window(self, first: int, last: int) -> None:
        ages = sorted({age for job in self.account.jobs if (age := row(job).created_at)})
        start, end = sorted((ages[first % len(ages)], ages[last % len(ages)]))
        if start < end:
            self.shelf.run(self.api, window=(start, end), **self.options)
            present = {
                job["id"]: job
                for job in self.account.jobs
                if row(job).is_usable and start <= (row(job).created_at or END) < end
            }
            content = self.shelf.content()
            assert {key: content.get(key) for key in present} == self.expected(present)

    def usable(self) -> set[str]:
        return {job["id"] for job in self.account.jobs if row(job).is_usable}

    def check(self) -> None:
        usable = {job["id"]: job for job in self.account.jobs if row(job).is_usable}
        content = self.shelf.content()
        assert {key: content.get(key) for key in usable} == self.expected(usable)
        assert set(content) - set(usable) <= self.gone
        assert len(set(self.shelf.removed)) == len(self.shelf.removed)
        assert set(self.shelf.removed) <= self.gone
        unusable = {fingerprint(job) for job in self.account.jobs if not row(job).is_usable}
        assert unusable <= set(self.shelf.rejected)

    def expected(self, jobs: dict[str, Job]) -> dict[str, Any]:
        return {key: Shape(str).job_record(row(job)) for key, job in jobs.items()}


class DuckDBLife(Life):
    """The same lives, loaded by dlt."""

    def make_shelf(self) -> Any:
        return DuckDB(self.stack.enter_context(TemporaryDirectory()))

    def expected(self, jobs: dict[str, Job]) -> dict[str, Any]:
        return {key: summary(job) for key, job in jobs.items()}


def test_duckdb_equals_the_account() -> None:
    """After each run at rest, DuckDB holds the account, jobs and results."""
    examples = int(os.environ.get("WAREHOUSE_EXAMPLES", "5"))
    run_state_machine_as_test(
        DuckDBLife, settings=settings(RUNS, max_examples=examples, stateful_step_count=15)
    )


def test_the_shelf_equals_the_account() -> None:
    """After each run at rest, the dictionary holds the account, whatever happened before."""
    examples = int(os.environ.get("MODEL_EXAMPLES", "40"))
    run_state_machine_as_test(
        Life, settings=settings(RUNS, max_examples=examples, stateful_step_count=30)
    )
