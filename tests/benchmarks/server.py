"""The API of the benchmarks, in a process of its own: fast enough not to be what is measured.

    python tests/benchmarks/server.py JOBS

Each job is made and encoded once, so that a page is a slice, joined; the demo API makes its pages
anew for each request, and is as slow as it is exact. The account stands still while it is read.
`GET /show?jobs=N&latency_ms=L&pending=P&among=M` lets it have its oldest N jobs, makes P of the
oldest M pending and each request take L ms more, and counts from zero; `GET /facts` has what there
is to load, and the number of requests.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import urlopen

import orjson

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply, result_file

EVERY = timedelta(seconds=30)  # a day has 2,880 jobs
MOST_RESULTS = 5
WARNINGS = ["profile removed", "metadata removed", "resized"]
PENDING = {"status": "pending", "completed_files": 0, "failed_files": 0, "progress": 0}
PENDING |= {"error_message": None, "results": None, "completed_at": None}


class FastAPI(DemoAPI):
    """Answers from encoded jobs, each request on its own: latencies overlap."""

    def __init__(self, size: int) -> None:
        super().__init__(DemoAccount(0))
        self._random = Random(0)
        self._jobs, self._facts = list[str](), list[tuple[str, int]]()  # oldest first
        for _ in range(size):
            self._add()
        self.show(size)

    def _add(self) -> None:
        random = self._random
        files = [_file(random, number) for number in range(random.randint(0, MOST_RESULTS))]
        job = self.account.create(EVERY, total_files=max(1, len(files)))
        if random.random() < 0.08:
            files = []
            job |= {"status": "failed", "failed_files": 1, "error_message": "Unsupported codec."}
        else:
            job |= {"status": "completed", "completed_files": len(files), "progress": 100}
        job |= {"results": {"files": files}, "completed_at": job["created_at"]}
        self._jobs.append(orjson.dumps(job).decode())
        self._facts.append((job["status"], len(files)))
        self.account.jobs.clear()

    def show(
        self, jobs: int, latency_ms: int = 0, pending: int = 0, among: int = 0
    ) -> dict[str, Any]:
        """Let the account have its oldest jobs, some pending, spread over these or fewer."""
        among = among or jobs
        self._size, self._latency, self._count = jobs, latency_ms / 1000, 0
        self._pending = {
            place: orjson.dumps(orjson.loads(self._jobs[place]) | PENDING).decode()
            for place in range(among // max(1, 2 * pending), among, among // max(1, pending))[
                :pending
            ]
        }
        return self.facts()

    def facts(self) -> dict[str, Any]:
        """Count jobs, results and statuses, and the requests so far."""
        there = [
            (("pending", 0) if place in self._pending else fact)
            for place, fact in enumerate(self._facts[: self._size])
        ]
        return {
            "requests": self._count,
            "jobs": self._size,
            "results": sum(results for _, results in there),
            "statuses": dict(sorted(Counter(status for status, _ in there).items())),
        }

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one HTTP request."""
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        if url.path == "/show":
            body = self.show(**{name: int(value) for name, value in query.items()})
        elif url.path == "/facts":
            body = self.facts()
        elif request.headers.get("Authorization") != f"Bearer {self.key}":
            body = {"error": "Invalid API key."}
        else:
            with self._lock:
                self._count += 1
            time.sleep(self._latency)
            text = self._encoded(
                int(query.get("limit", 20)), int(query.get("offset", 0)), query.get("status")
            )
            return Reply(200, text).send(request)
        return Reply(401 if "error" in body else 200, body).send(request)

    def _encoded(self, limit: int, offset: int, status: str | None) -> str:
        places: Sequence[int] = range(self._size)
        if status:
            places = sorted(self._pending) if status == "pending" else []
        newest_first = places[::-1][offset : offset + limit]
        jobs = ",".join(self._pending.get(place, self._jobs[place]) for place in newest_first)
        total, has_more = len(places), offset + limit < len(places)
        pagination = {"limit": limit, "offset": offset, "total": total, "hasMore": has_more}
        return f'{{"jobs":[{jobs}],"pagination":{json.dumps(pagination)}}}'


def _file(random: Random, number: int) -> dict[str, Any]:
    """Make an item of results with an object and a list in it, as some operations give."""
    size = {"width": random.randint(100, 4000), "height": random.randint(100, 4000)}
    warnings = random.sample(WARNINGS, random.randint(0, 2))
    return result_file(random, number) | {"dimensions": size, "warnings": warnings}


class Server:
    """That process, seen from the one that measures."""

    key = DEMO_KEY

    def __init__(self, url: str) -> None:
        self.url = url

    def show(self, jobs: int, **options: int) -> dict[str, Any]:
        """Set what the account has, and begin to count; return what there is to load."""
        return self._get(f"/show?{urlencode({'jobs': jobs, **options})}")

    def facts(self) -> dict[str, Any]:
        """Return what there is to load, and the number of requests."""
        return self._get("/facts")

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(self.url + path) as response:  # noqa: S310 - its own
            answer: dict[str, Any] = orjson.loads(response.read())
            return answer


@contextmanager
def serving(size: int) -> Iterator[Server]:
    """Run the server with that many jobs at most."""
    command = [sys.executable, str(Path(__file__).resolve()), str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield Server(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    with FastAPI(int(sys.argv[1])).serve() as api:
        print(api.url, flush=True)
        while True:
            time.sleep(60)
