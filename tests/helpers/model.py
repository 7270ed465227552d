"""Two warehouses that a life is loaded into, and what must be in them."""

import os
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, cast
from unittest.mock import patch

from dlt.common.json import json as dlt_json

from convertly_source import convertly_source
from convertly_source.api.client import Job, JobsClient, JobsPage
from convertly_source.demo import DEMO_KEY, DemoAPI
from convertly_source.loading import Target, verify_account
from convertly_source.reading.job import BEGINNING, END
from convertly_source.reading.listing import Listing
from convertly_source.reading.run import IncrementalRun, RunState, new_state
from convertly_source.tables.records import RecordMapper, fingerprint
from helpers.warehouse import Warehouse


class Direct:
    """A client that asks a demo API without HTTP."""

    def __init__(self, api: DemoAPI) -> None:
        self._api, self._lock = api, Lock()

    @property
    def requests(self) -> int:
        """The number of requests so far."""
        return len(self._api.requests)

    def page(self, offset: int, limit: int, status: str | None = None) -> JobsPage:
        """Answer as the API would over HTTP."""
        query = {"offset": str(offset), "limit": str(limit)} | (
            {"status": status} if status else {}
        )
        with self._lock:
            self._api.requests.append(query)
            self._api.before_answer(self._api.account)
            body = self._api.page(limit, offset, status)
        jobs: list[Job] = dlt_json.loadb(dlt_json.dumpb(body["jobs"]))
        return JobsPage(jobs, offset, body["pagination"]["total"])


class Shelf:
    """A warehouse in a dictionary. What is loaded in it goes through JSON, as dlt's state does."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.removed: list[str] = []
        self.rejected = set[str]()
        self.state = new_state()
        self.handed_over = 0  # jobs, by the last run

    def run(
        self,
        api: DemoAPI,
        kill_after: int | None = None,
        window: tuple[datetime, datetime] | None = None,
        page_size: int = 100,
        max_connections: int = 4,
        status: str | None = None,
        start: datetime = BEGINNING,
        client: JobsClient | None = None,
    ) -> int:
        """Load, and return the number of requests. Without a client there is no HTTP in between.

        When killed after some batches, those are loaded and the rest is not read.
        """
        asked, mapper, self.handed_over = len(api.requests), RecordMapper(str), 0
        client = client or cast("JobsClient", Direct(api))
        listing = Listing(client, page_size, max_connections)
        run = IncrementalRun(
            listing,
            status,
            new_state() if window else self.state,
            window or (start, END),
            trust_account=True,  # it is one account, even if all that was known is purged
        )
        seen, state = Counter[str](), dlt_json.typed_dumpb(self.state)
        try:
            for number, changes in enumerate(run.changes, 1):
                self.jobs |= {job.id or "": mapper.job_record(job) for job in changes.jobs}
                self.removed += [job.id for job in changes.removed]
                self.rejected |= {fingerprint(job.job.raw) for job in changes.rejected}
                self.handed_over += len(changes.jobs)
                seen.update(job.id or "" for job in changes.jobs)
                state = dlt_json.typed_dumpb(run.state)
                if number == kill_after:
                    break
            else:
                state = dlt_json.typed_dumpb(run.state | {"jobs_read": 0})
        finally:
            if not window:  # what was loaded has its state with it, however the run ends
                stored: RunState = dlt_json.typed_loadb(state)
                self.state = stored
        assert seen.total() == len(seen), "a job was handed over twice in a run"
        self.last_run = run
        return len(api.requests) - asked

    def content(self) -> dict[str, Any]:
        """Return the jobs, by id."""
        return self.jobs


class DuckDB:
    """A warehouse in DuckDB, loaded by dlt in chunks of ten batches."""

    def __init__(self, folder: str) -> None:
        self._warehouse = Warehouse(Path(folder), folder)

    def run(self, api: DemoAPI, kill_after: int | None = None, **options: Any) -> None:
        """Load; when killed after some batches, those are loaded and the rest is not read."""
        if "window" in options:
            start, end = options.pop("window")
            options |= {"start_date": start, "end_date": end}
        # It is one account, even if all that was known is purged.
        source = convertly_source(DEMO_KEY, api.url, trust_account=True, **options)
        jobs = source.resources["jobs"].add_limit(kill_after or 10)
        jobs.custom_metrics["is_complete"] = False
        while not jobs.custom_metrics["is_complete"]:
            self._warehouse.pipeline.run(source)
            if kill_after:
                break

    def verify(self, api: DemoAPI, *, read_all: bool, **options: Any) -> None:
        """Verify, as the command line does."""
        source = convertly_source(DEMO_KEY, api.url, trust_account=True, **options)
        path = str(self._warehouse.path)
        with patch.dict(os.environ, {"DESTINATION__DUCKDB__CREDENTIALS": path}):
            verify_account(Target(dataset="data"), source, read_all=read_all)
        self._warehouse.pipeline.sync_destination()  # as a new process does

    def delete(self, keys: list[str]) -> None:
        """Lose rows of jobs, but not their results."""
        self._warehouse.query(f"DELETE FROM jobs WHERE id IN {(*keys, '')}")

    @property
    def state(self) -> Any:
        """What is remembered for the next run."""
        state: Any = self._warehouse.pipeline.state
        for key in ("sources", "convertly", "resources", "jobs", "all"):
            state = state.get(key, {})
        return state or new_state()

    @property
    def removed(self) -> list[str]:
        """The ids of removed_jobs."""
        return [key for (key,) in self._warehouse.rows("removed_jobs", "id")]

    @property
    def rejected(self) -> list[str]:
        """The fingerprints of rejected_jobs."""
        return [key for (key,) in self._warehouse.rows("rejected_jobs", "fingerprint")]

    def held(self) -> set[tuple[str, str]]:
        """Return the key and status of each job that is stored or rejected, but not removed."""
        jobs = self._warehouse.rows("jobs", "id", "status")
        rejected = self._warehouse.rows("rejected_jobs", "fingerprint", "status")
        removed = {*self.removed}
        return {(key, status) for key, status in jobs if key not in removed} | {*rejected}

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
