"""An account that moves between any two requests, in process, and a judge of what is read of it.

One life is one seed: the account, how it moves, the manners of its server, the runs and their
kills all follow from the name of a world and a number. No HTTP, no dlt, no clock.
"""

import itertools
import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, cast

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, Job, JobsClient, JobsPage
from convertly_source.errors import ResponseError, UnavailableError
from convertly_source.reading.job import BEGINNING, END
from convertly_source.reading.listing import Listing
from convertly_source.reading.run import MAX_ENDED_JOBS, IncrementalRun, new_state

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = 86_400_000  # milliseconds, as all times here
NO_LIMIT = 10**9

Place = tuple[int, int, str]  # in the list: created_at, order among equal ones, id


def moment(milliseconds: int) -> datetime:
    """Return a time of an account as a datetime."""
    return START + timedelta(milliseconds=milliseconds)


@dataclass
class World:
    """How an account moves per request, on average, and the manners of its server."""

    page_size: int = 6
    jobs: tuple[int, int] = (0, 60)
    runs: tuple[int, int] = (3, 7)
    kills: float = 0.3  # of the runs
    starts: float = 0  # of the runs have a start date
    connections: tuple[int, int] = (1, 4)
    # What happens between two requests.
    create: float = 0.4
    finish: float = 0.3
    progress: float = 0.3
    cancel: float = 0.3
    reopen: float = 0
    delete: float = 0  # of jobs that have ended
    purge: float = 0  # of the oldest
    bulk_purge: float = 0
    bulk_create: float = 0
    # What is created.
    unfinished: float = 0.25
    equal: float = 0.3  # with the `created_at` of the job before
    gaps: tuple[int, ...] = (1, 1000, 60_000, 400_000)
    late: float = 0.15
    most_late: int = 290_000
    future: float = 0
    # The server.
    newest_first: bool = True
    equals: str = "random"  # their order: random, by_request, by_change or by_creation
    largest_page: int = NO_LIMIT
    replica: float = 0  # of the answers come from a replica
    replica_lag: int = 0  # requests
    status_lists_lag: bool = False
    total: str = "right"  # or off_by_one, stale
    # The judge.
    is_lying: bool = False  # a moving run may miss something, if another one at rest brings it

    @classmethod
    def named(cls, name: str, rnd: random.Random) -> "World":
        """Draw a world of that name."""
        world = cls(
            page_size=rnd.choice([5, 6, 8, 10, 12]),
            newest_first=rnd.random() < 0.7,
            equals=rnd.choice(["random", "by_change", "by_creation", "by_request", "random"]),
        )
        world.largest_page = rnd.choice([NO_LIMIT] * 4 + [max(4, world.page_size - 2)])
        if rnd.random() < 0.5:
            world.create, world.cancel = rnd.choice([0, 0.1, 1]), rnd.choice([0, 0.1, 1])
        if rnd.random() < 0.3:
            world.purge = 0.3
        if rnd.random() < 0.15:
            world.bulk_purge = 0.02
        kind, _, rate = name.partition("_at_")
        for key, value in WORLDS[kind](rnd).items():
            setattr(world, key, value)
        if rate:
            world.create = float(rate)
        return world


STABLE = ["by_creation", "by_change"]
CALM = {"purge": 0, "bulk_purge": 0}

WORLDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "base": lambda _: {},
    "mild": lambda rnd: {
        "page_size": 10,
        "jobs": (0, 120),
        "create": rnd.choice([0, 0.1, 0.2]),
        "cancel": rnd.choice([0, 0.05, 0.1]),
        "purge": rnd.choice([0, 0, 0.1]),
        "bulk_purge": 0,
        "late": 0.05,
        "largest_page": NO_LIMIT,
    },
    "mild100": lambda rnd: {
        "page_size": 100,
        "jobs": (0, 3000),
        "runs": (1, 3),
        "create": rnd.choice([0, 0.2, 1]),
        "cancel": rnd.choice([0, 0.1, 0.5]),
        "purge": rnd.choice([0, 0, 0.5]),
        "bulk_purge": 0,
        "late": 0.05,
        "largest_page": NO_LIMIT,
    },
    "stable": lambda rnd: {"equals": rnd.choice(STABLE), "largest_page": NO_LIMIT},
    "page100": lambda rnd: {
        "page_size": 100,
        "jobs": (300, 2500),
        "runs": (2, 4),
        "largest_page": rnd.choice([NO_LIMIT] * 4 + [37]),
        "create": rnd.choice([0, 0.2, 1, 4]),
        "cancel": rnd.choice([0, 0.2, 1]),
    },
    "ties": lambda rnd: {"equal": rnd.choice([0.9, 0.95, 0.98]), "jobs": (20, 120)},
    "ties_stable": lambda rnd: {
        "equal": rnd.choice([0.9, 0.95, 0.98]),
        "jobs": (20, 120),
        "equals": rnd.choice(STABLE),
    },
    "ties300": lambda _: {
        "page_size": 100,
        "equal": 0.996,
        "jobs": (300, 1500),
        "runs": (2, 4),
    },
    "bulkadd": lambda _: {"bulk_create": 0.1},
    "purge": lambda rnd: {
        "purge": rnd.choice([0.5, 2, 5]),
        "bulk_purge": rnd.choice([0, 0.05]),
        "jobs": (60, 300),
        "create": rnd.choice([0, 0.3]),
    },
    "starts": lambda rnd: (
        {"starts": 0.6, "runs": (4, 9), "jobs": (0, 120)} | rnd.choice([CALM, {}])
    ),
    "deletes": lambda rnd: {"delete": rnd.choice([0.1, 0.5, 2]), "jobs": (20, 120)},
    "heavy": lambda _: {
        "page_size": 100,
        "jobs": (1000, 3000),
        "runs": (1, 2),
        "kills": 0,
        **CALM,
        "cancel": 0.3,
        "late": 0.02,
        "equal": 0.1,
        "gaps": (1, 20, 300),
        "equals": "by_creation",
        "newest_first": True,
        "largest_page": NO_LIMIT,
    },
    # Servers that are behind, jobs that come later than they may, and times of the future.
    "total1": lambda rnd: {
        "total": "off_by_one",
        "equals": rnd.choice(["by_creation", "random"]),
        "is_lying": True,
    },
    "totalstale": lambda rnd: {
        "total": "stale",
        "replica_lag": rnd.choice([1, 3]),
        "is_lying": True,
    },
    "replica": lambda rnd: {
        "replica": 0.5,
        "replica_lag": rnd.choice([1, 2, 4]),
        "equals": rnd.choice(["by_creation", "by_creation", "by_change", "random"]),
        "is_lying": True,
    },
    "statuslag": lambda rnd: {
        "status_lists_lag": True,
        "replica_lag": rnd.choice([1, 3, 6]),
        "is_lying": True,
    },
    "late": lambda rnd: {
        **CALM,  # what is purged hides as many late jobs from the count
        "late": 0.3,
        "most_late": rnd.choice([3_600_000, 5 * DAY]),
        "is_lying": True,
    },
    "latepurge": lambda rnd: {
        "late": 0.3,
        "most_late": rnd.choice([3_600_000, 5 * DAY]),
        "purge": rnd.choice([0.3, 1]),
        "is_lying": True,
    },
    "future": lambda rnd: {"future": rnd.choice([1 / 20, 1 / 200]), "is_lying": True},
    "reopen": lambda _: {"reopen": 0.3, "is_lying": True},
}


class Jobs:
    """Jobs in the order of the list, oldest first."""

    def __init__(self) -> None:
        self.order: list[Place] = []
        self.by_id: dict[str, Job] = {}
        self._places: dict[str, Place] = {}

    def put(self, key: str, place: Place, job: Job) -> None:
        """Add a job, or replace it."""
        self.remove(key)
        self.by_id[key], self._places[key] = job, place
        insort(self.order, place)

    def remove(self, key: str) -> None:
        """Take a job out, if it is there."""
        if key in self.by_id:
            del self.order[bisect_left(self.order, self._places.pop(key))]
            del self.by_id[key]

    def place(self, key: str) -> Place:
        """Return where a job stands."""
        return self._places[key]


class Account:
    """The jobs of an account, and the changes to them, by the number of the request."""

    def __init__(self, world: World, rnd: random.Random) -> None:
        self.world, self.rnd = world, rnd
        self.now, self.tick, self._sequence = 0, 0, 0
        self.jobs = Jobs()
        self.changes: list[tuple[int, Callable[[Jobs], None]]] = []
        self._unfinished: list[str] = []
        self._ended: list[str] = []
        for _ in range(rnd.randint(*world.jobs)):
            self.create(self._gap())
        self.tick = 100

    def create(self, gap: int, late: int = 0) -> str:
        """Create a job, `gap` after the one before it; `late` before that, or after it."""
        self.now += gap
        self._sequence += 1
        key = f"{self.rnd.getrandbits(32):08x}{self._sequence}"
        created_at = max(0, self.now - late)
        is_open = self.rnd.random() < self.world.unfinished
        status = "pending" if is_open else "completed"
        is_random = self.world.equals in ("random", "by_request")
        rank = self.rnd.getrandbits(40) if is_random else self._sequence
        text = moment(created_at).isoformat(timespec="milliseconds")
        job = {"id": key, "status": status, "progress": 0, "created_at": text}
        self._change(lambda jobs: jobs.put(key, (created_at, rank, key), job))
        (self._unfinished if is_open else self._ended).append(key)
        return key

    def finish(self) -> None:
        """End a job."""
        if key := self._pick(self._unfinished):
            self._ended.append(self._unfinished.pop())
            self._set(key, self.rnd.choice(FINAL_STATUSES))

    def progress(self) -> None:
        """Move a job on."""
        if key := self._pick(self._unfinished):
            self._set(key, "processing")

    def reopen(self) -> None:
        """Begin a job again that has ended."""
        if key := self._pick(self._ended):
            self._unfinished.append(self._ended.pop())
            self._set(key, "processing")

    def cancel(self) -> None:
        """Take out a job that is pending."""
        for _ in range(5):
            key = self._pick(self._unfinished)
            if key and self.jobs.by_id[key]["status"] == "pending":
                self.remove(key)
                return

    def delete(self) -> None:
        """Take out a job that has ended."""
        if key := self._pick(self._ended):
            self.remove(key)

    def purge(self, count: int) -> None:
        """Take out the oldest jobs, but for the last one."""
        for _, _, key in self.jobs.order[: max(0, min(count, len(self.jobs.order) - 1))]:
            self.remove(key)

    def remove(self, key: str) -> None:
        """Take a job out."""
        self._change(lambda jobs: jobs.remove(key))

    def move(self) -> None:
        """Do what happens between two requests."""
        world, rnd = self.world, self.rnd
        for _ in range(self._times(world.create)):
            late = 0
            if rnd.random() < world.late:
                span = self.now - self.jobs.order[0][0] if self.jobs.order else 0
                most = world.most_late
                late = rnd.randrange(min(most, max(1, span)) if most > 600_000 else most)
            self.create(self._gap(), late)
            if rnd.random() < world.future:
                self.create(0, -rnd.randrange(1, 365 * DAY))
        for name in ("finish", "progress", "cancel", "reopen", "delete"):
            for _ in range(self._times(getattr(world, name))):
                getattr(self, name)()
        self.purge(self._times(world.purge))
        if rnd.random() < world.bulk_purge:
            self.purge(int(len(self.jobs.order) * rnd.uniform(0.05, 0.5)))
        if rnd.random() < world.bulk_create:
            for _ in range(rnd.randrange(1, 3 * world.page_size)):
                self.create(0)

    def _change(self, change: Callable[[Jobs], None]) -> None:
        change(self.jobs)
        self.changes.append((self.tick, change))

    def _set(self, key: str, status: str) -> None:
        self._sequence += 1
        created_at, rank, _ = self.jobs.place(key)
        place = created_at, self._sequence if self.world.equals == "by_change" else rank, key
        job = self.jobs.by_id[key] | {"status": status, "progress": self._sequence}
        # A replica may have lost it already.
        self._change(lambda jobs: jobs.put(key, place, job))

    def _pick(self, keys: list[str]) -> str | None:
        """Move one that is still there to the end of the list."""
        while keys:
            index = self.rnd.randrange(len(keys))
            keys[index], keys[-1] = keys[-1], keys[index]
            if keys[-1] in self.jobs.by_id:
                return keys[-1]
            keys.pop()
        return None

    def _gap(self) -> int:
        is_equal = self.rnd.random() < self.world.equal
        return 0 if is_equal else self.rnd.choice(self.world.gaps)

    def _times(self, mean: float) -> int:
        """Draw how often something happens (Poisson)."""
        if mean >= 10:
            return max(0, round(self.rnd.gauss(mean, mean**0.5)))
        times, threshold, product = 0, 2.718281828**-mean, self.rnd.random()
        while product > threshold:
            times += 1
            product *= self.rnd.random()
        return times


class EndlessError(Exception):
    """A run asked for more than any run should."""


class Server:
    """Answers as `JobsClient` does; while it is moving, the account moves before each answer."""

    def __init__(self, account: Account) -> None:
        self.account, self.world, self.rnd = account, account.world, account.rnd
        self.is_moving, self.requests = False, 0
        self.most_requests = self.most_moves = NO_LIMIT
        self._replica, self._replayed = Jobs(), 0

    @property
    def pages(self) -> float:
        """The number of pages of the list, with an overlap of one job."""
        size = min(self.world.page_size, self.world.largest_page)
        return len(self.account.jobs.by_id) / max(1, size - 1)

    @property
    def fair_requests(self) -> int:
        """The requests that a run may need for the jobs that are listed now."""
        return 600 + int(40 * self.pages)

    def page(self, offset: int, limit: int, status: str | None = None) -> JobsPage:
        """Answer a request; others may be answered while it is on its way, or its answer."""
        Pool.overtake()
        answer = self._answer(offset, limit, status)
        Pool.overtake()
        return answer

    def _answer(self, offset: int, limit: int, status: str | None) -> JobsPage:
        world, account = self.world, self.account
        self.requests += 1
        if self.requests > self.most_requests:
            raise EndlessError
        account.tick += 1
        if self.is_moving and self.requests < self.most_moves:
            account.move()
            self.most_requests = max(self.most_requests, self.fair_requests)  # it may have grown
        self._replay(account.tick - (world.replica_lag if self.is_moving else 0))
        is_behind = self.is_moving and self.rnd.random() < world.replica
        is_behind |= bool(self.is_moving and status and world.status_lists_lag)
        jobs = self._replica if is_behind else account.jobs
        order = jobs.order
        if status:
            order = [place for place in order if jobs.by_id[place[2]]["status"] == status]
        total = len(order)
        limit = min(limit, world.largest_page)
        start, end = offset, min(total, offset + limit)
        if world.newest_first:
            start, end = max(0, total - offset - limit), max(0, total - offset)
        page = [jobs.by_id[key] for _, _, key in self._cut(order, start, end, (offset, limit))]
        if world.newest_first:
            page.reverse()
        if self.is_moving and not status:
            if world.total == "stale":
                total = len(self._replica.order)
            elif world.total == "off_by_one":
                total = max(0, total + self.rnd.choice((-1, 0, 0, 1)))
        date = moment(account.now).replace(microsecond=0)
        return JobsPage(page, offset, total, date)

    def shows_all(self) -> bool:
        """Whether each job is on some page of two or more; in an order by request it may not be."""
        order, largest = self.account.jobs.order, min(self.world.page_size, self.world.largest_page)
        requests = itertools.product(range(len(order)), range(2, largest + 1))
        shown = set[Place]()
        for offset, limit in requests:
            start, end = offset, min(len(order), offset + limit)
            if self.world.newest_first:
                start, end = max(0, len(order) - offset - limit), len(order) - offset
            shown.update(self._cut(order, start, end, (offset, limit)))
        return shown >= set(order)

    def _replay(self, until: int) -> None:
        changes = self.account.changes
        while self._replayed < len(changes) and changes[self._replayed][0] <= until:
            changes[self._replayed][1](self._replica)
            self._replayed += 1

    def _cut(
        self, order: list[Place], start: int, end: int, request: tuple[int, int]
    ) -> list[Place]:
        """Cut a page out, after jobs of one `created_at` have changed places."""
        if self.world.equals in STABLE or start >= end:
            return order[start:end]
        rnd = self.rnd
        if self.world.equals == "by_request":
            rnd = random.Random(f"{request} {len(order)}")
        page = list[Place]()
        while start < end:
            first = bisect_left(order, (order[start][0],))
            after = bisect_left(order, (order[start][0] + 1,))
            count = min(after, end) - start
            page += rnd.sample(order[first:after], count)
            start += count
        return page


class Pool:
    """An executor for one thread: requests that are under way overtake each other at random."""

    rnd = random.Random(0)
    latest: "Pool | None" = None

    def __init__(self, size: int) -> None:
        self._idle = size
        self._waiting = deque[Task]()
        Pool.latest = self

    @classmethod
    def overtake(cls) -> None:
        """Perhaps answer other requests, while one is under way."""
        while cls.latest and cls.rnd.random() < 0.2 and cls.latest.step():
            pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Task":
        """Take a task on; perhaps do some that wait."""
        task = Task(self, function, arguments)
        self._waiting.append(task)
        while self.rnd.random() < 0.3 and self.step():
            pass
        return task

    def step(self) -> bool:
        """Do one of the tasks that wait, if there is one and a thread for it."""
        self._waiting = deque(task for task in self._waiting if not task.cancelled())
        if not self._waiting or not self._idle:
            return False
        index = self.rnd.randrange(min(self._idle, len(self._waiting)))
        task = self._waiting[index]
        del self._waiting[index]
        self._idle -= 1
        task.run()
        self._idle += 1
        return True


class Task(Future[Any]):
    """A request that is under way."""

    def __init__(self, pool: Pool, function: Callable[..., Any], arguments: Any) -> None:
        super().__init__()
        self._pool, self._call = pool, (function, arguments)

    def cancel(self) -> bool:
        """Give it up, unless it was sent."""
        return self._pool.rnd.random() < 0.5 and super().cancel()

    def run(self) -> None:
        """Do it."""
        function, arguments = self._call
        try:
            self.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - handed on
            self.set_exception(error)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it."""
        while not self.done():
            self._pool.step()
        return super().result(timeout)


class Failure(NamedTuple):
    """What went wrong in a life."""

    kind: str
    text: str


@dataclass
class Life:
    """An account, the runs that load it, and what is loaded."""

    world_name: str
    seed: int
    failures: list[Failure] = field(default_factory=list)
    story: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rnd = random.Random(f"{self.world_name} {self.seed}")
        self.world = World.named(self.world_name, self.rnd)
        self.account = Account(self.world, self.rnd)
        self.server = Server(self.account)
        self.state = new_state()
        self.loaded: dict[str, tuple[str, int]] = {}  # status and progress, by id
        self.removed: set[str] = set()
        self.held = 0  # after the last complete run

    def live(self) -> list[Failure]:
        """Run some times, then once more while it moves and at rest; return what went wrong."""
        Pool.rnd = random.Random(f"pool {self.world_name} {self.seed}")
        for _ in range(self.rnd.randint(*self.world.runs)):
            is_moving = self.rnd.random() < 0.75
            kill = self.rnd.randint(1, 6) if self.rnd.random() < self.world.kills else None
            self.run(is_moving=is_moving, kill=kill, start=self._start())
            for _ in range(self.rnd.choice([0, 0, 1, 3, 10])):
                self.account.tick += 1
                self.account.move()
        self.run(is_moving=True)
        for number in range(1 + self.world.is_lying):
            self.run(is_moving=False, is_last=number == self.world.is_lying)
        return self.failures

    def run(
        self,
        *,
        is_moving: bool,
        kill: int | None = None,
        start: int = 0,
        is_last: bool = False,
    ) -> None:
        """Run once; a kill comes after that many batches, jobs older than `start` are left out."""
        if self.failures:
            return
        server, order = self.server, self.account.jobs.order
        there = {key for created_at, _, key in order if created_at >= start}
        server.is_moving, server.requests = is_moving, 0
        server.most_requests = server.fair_requests
        server.most_moves = min(2000, 100 + int(4 * server.pages))  # else it grows exponentially
        self.story.append({"moving": is_moving, "kill": kill, "start": start, "jobs": len(there)})
        try:
            is_complete = self._load(kill, start)
        except UnavailableError as error:
            is_complete = False
            self.story[-1]["unavailable"] = str(error)
            if not is_moving:
                self._fail("unavailable at rest", str(error))
        except ResponseError as error:
            is_complete = False
            if server.shows_all():
                self._fail("alarm" if is_moving else "alarm at rest", str(error))
        except EndlessError:
            is_complete = False
            self._fail("endless", f"{server.requests} requests for {len(there)} jobs")
        self.story[-1] |= {"requests": server.requests, "complete": is_complete}
        if is_complete:
            if is_last or not self.world.is_lying:
                self._judge(there, is_part=is_moving or start > 0)
            if is_last:
                self._judge_quiet_run()

    def _start(self) -> int:
        """Draw a start date, perhaps that of a job; 0 is none."""
        if self.world.starts and self.rnd.random() < self.world.starts:
            times = [created_at for created_at, _, _ in self.account.jobs.order] or [0]
            return self.rnd.choice(times) + self.rnd.choice([0, 0, 1, 400_000])
        return 0

    def _load(self, kill: int | None = None, start: int = 0) -> bool:
        listing = Listing(
            cast("JobsClient", self.server),
            self.world.page_size,
            self.rnd.randint(*self.world.connections),
        )
        if not listing.is_ordered:
            self._fail("unordered", "taken for a list without an order")
        window = moment(start) if start else BEGINNING, END
        # It is one account, even if all that was known is purged.
        run = IncrementalRun(listing, None, self.state, window, trust_account=True)
        handed_over = set[str]()
        try:
            for number, changes in enumerate(run.changes, 1):
                for job in changes.jobs:
                    key = job.id or ""
                    if key in handed_over:
                        self._fail("twice", f"{key} was handed over twice in a run")
                    handed_over.add(key)
                    self.loaded[key] = job.raw["status"], job.raw["progress"]
                self.removed -= handed_over  # a job that is listed again
                self.removed |= {job.id for job in changes.removed}
                if number == kill:
                    return False
        finally:
            self.state = deepcopy(run.state)
        if not listing.is_ordered:
            self._fail("unordered", "taken for a list without an order")
        self.held = run.held
        return True

    def _judge(self, there: set[str], *, is_part: bool) -> None:
        """Compare what is loaded with the account; of a run that saw a part, what was there."""
        now = self.account.jobs.by_id
        if lost := [key for key in there if key in now and key not in self.loaded]:
            times = [now[key]["created_at"] for key in lost[:3]]
            kind = "delayed" if is_part else "lost"
            self._fail(kind, f"{len(lost)} of {len(there)}: {lost[:3]} of {times}")
        if wrong := self.removed & now.keys():
            self._fail("removed falsely", f"{len(wrong)}: {sorted(wrong)[:3]}")
        if is_part:
            return
        if self.held != len(now):
            self._fail("miscounted", f"{self.held} of {len(now)} are held")
        stale = [
            key
            for key, job in now.items()
            if key in self.loaded and self.loaded[key] != (job["status"], job["progress"])
        ]
        if stale and not self.world.reopen:  # a job that was reopened may have ended unseen
            self._fail("stale", f"{len(stale)}: {stale[:3]}")
        ghosts = [
            key
            for key, (status, _) in self.loaded.items()
            if status in OPEN_STATUSES and key not in now and key not in self.removed
        ]
        if ghosts:
            self._fail("ghost", f"{len(ghosts)} unfinished jobs are gone: {ghosts[:3]}")

    def _judge_quiet_run(self) -> None:
        """Run once more: without news nothing is handed over, and nothing changes in the state."""
        state, loaded = self.state | {"jobs_read": 0}, self.loaded
        is_many = len(self.loaded) > MAX_ENDED_JOBS  # which are remembered
        if state["count_has_risen"] or is_many or self.world.reopen:  # reopened jobs are news
            return
        self.loaded, self.server.requests = {}, 0
        self._load()
        if self.loaded or self.state | {"jobs_read": 0} != state:
            self._fail("restless", f"{len(self.loaded)} jobs were handed over without news")
        self.loaded = loaded

    def _fail(self, kind: str, text: str) -> None:
        self.failures.append(Failure(kind, text))


def lives(world: str, count: int, first: int = 0) -> Iterator[Life]:
    """Yield lives that have been lived."""
    for seed in range(first, first + count):
        life = Life(world, seed)
        life.live()
        yield life
