"""A warehouse of bare rows that is loaded and verified, and accounts whose jobs have ended."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from convertly_source.demo import DEMO_START, DemoAccount, DemoAPI
from convertly_source.loading.held import HeldJob, HeldJobs, stored_status
from convertly_source.loading.verify import VerifyRun
from convertly_source.reading.job import BEGINNING, END
from convertly_source.reading.listing import Listing
from convertly_source.reading.run import Changes, IncrementalRun, new_state
from helpers.model import Direct

if TYPE_CHECKING:
    from convertly_source.api.client import JobsClient

MINUTE = timedelta(minutes=1)
EVERYTHING = BEGINNING, END


class Rows:
    """The rows of `jobs` and of `removed_jobs`, by id; without dlt, and without HTTP."""

    def __init__(self, client: Any, page_size: int = 100) -> None:
        self.held: dict[str, HeldJob] = {}
        self.removed = set[str]()
        self._client = cast("JobsClient", client)
        self._page_size = page_size
        self._state = new_state()

    @classmethod
    def of(cls, api: DemoAPI, page_size: int = 100) -> "Rows":
        """Return the rows of an account that was loaded."""
        rows = cls(Direct(api), page_size)
        rows.load()
        return rows

    @property
    def count_has_risen(self) -> bool:
        """Whether the last run found more jobs than were loaded."""
        return self._state["count_has_risen"]

    def load(self, start: datetime = BEGINNING) -> None:
        """Run as usual, from a start date on."""
        self._finish(IncrementalRun(self._listing(), None, self._state, (start, END), **TRUSTED))

    def verify(
        self, *, read_all: bool = False, seed: int = 0, kill_after: int | None = None
    ) -> VerifyRun:
        """Verify, until a kill after some changes; pages at random places follow from the seed."""
        held_jobs = HeldJobs(self.jobs(*EVERYTHING))
        more: dict[str, Any] = {"held_jobs": held_jobs, "store": self, "read_all": read_all}
        run = VerifyRun(self._listing(), None, self._state, EVERYTHING, **more, **TRUSTED)
        run.comparison._random = random.Random(seed)
        self._finish(run, kill_after)
        return run

    def statuses(self) -> dict[str, str]:
        """Return the status of each job that is held, by id."""
        return {job.key: job.status for job in self.jobs(*EVERYTHING)}

    def jobs(self, since: datetime, before: datetime) -> Iterator[HeldJob]:
        """Yield the jobs of a range."""
        for job in sorted(self.held.values()):
            if job.key not in self.removed and since <= job.created_at < before:
                yield job

    def rejected_jobs(self, since: datetime, before: datetime) -> Iterator[HeldJob]:
        """Yield nothing: every job of these accounts can be stored."""
        assert since < before
        yield from ()

    def _listing(self) -> Listing:
        return Listing(self._client, self._page_size, 2)

    def _finish(self, run: IncrementalRun, kill_after: int | None = None) -> None:
        handed_over = Counter[str | None]()
        for changes in islice(run.changes, kill_after):
            self._take(changes)
            handed_over.update(job.id for job in changes.jobs)
        assert handed_over.total() == len(handed_over), "a job was handed over twice in a run"
        self._state = run.state

    def _take(self, changes: Changes) -> None:
        for job in changes.jobs:
            assert job.id
            assert job.created_at
            self.held[job.id] = HeldJob(job.created_at, job.id, stored_status(job))
            self.removed.discard(job.id)
        self.removed |= {job.id for job in changes.removed}


TRUSTED: dict[str, Any] = {"trust_account": True}  # it is one account, even if all is purged


def ended(
    size: int, chance: random.Random, gap: Callable[[], timedelta] | None = None
) -> DemoAccount:
    """Make an account of jobs that have ended, one created each minute or after each `gap`."""
    account, time = DemoAccount(0), DEMO_START
    for number in range(size):
        time += gap() if gap else MINUTE
        job = {"id": f"{number:07}", "created_at": time.isoformat(), "results": None}
        account.jobs.append(job | {"status": "completed" if chance.random() < 0.9 else "failed"})
    return account


def listed(account: DemoAccount) -> dict[str, str]:
    """Return the status of each job of an account, by id."""
    return {job["id"]: job["status"] for job in account.jobs}
