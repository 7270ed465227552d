"""An account that lives in memory, and the jobs API that answers from it, on 127.0.0.1 only."""

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from random import Random
from threading import Lock, Thread
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from convertly_source.client import Job
from convertly_source.results import FINAL_STATUSES, OPEN_STATUSES

DEMO_KEY = "cvly_demo"
DEMO_START = datetime(2026, 5, 1, tzinfo=timezone.utc)
JOB_TYPES = ("convert", "compress", "media_tool", "transfer")


class DemoAccount:
    """Jobs that are created, progress, finish, fail and are cancelled; the same for the same seed.

    It begins with `size` jobs, one each `every` on average from 1 May 2026 on. Most have ended;
    the last few have not, and a few older ones are stuck.
    """

    def __init__(
        self, size: int = 3000, seed: int = 0, every: timedelta = timedelta(hours=1)
    ) -> None:
        self.jobs: list[Job] = []  # oldest first
        self._random = Random(seed)
        self._now = DEMO_START
        for number in range(size):
            self.create(gap=every * 2 * self._random.random())
            if number < size - 8 and number % 500 != 99:
                self.finish(self.jobs[-1], has_failed=self._random.random() < 0.08)
            elif number % 2:
                self.progress(self.jobs[-1])

    def create(self, gap: timedelta = timedelta(minutes=1), **fields: Any) -> Job:
        """Create a pending job, `gap` after the one before it; `fields` go before the usual."""
        self._now += gap
        job: Job = {
            "id": str(UUID(int=self._random.getrandbits(128), version=4)),
            "job_type": self._random.choice(JOB_TYPES),
            "status": "pending",
            "total_files": self._random.randint(1, 4),
            "completed_files": 0,
            "failed_files": 0,
            "progress": 0,
            "error_message": None,
            "results": None,
            "created_at": _text(self._now),
            "completed_at": None,
        }
        self.jobs.append(job | fields)
        return self.jobs[-1]

    def progress(self, job: Job) -> None:
        """Move a job on, half of what is left; its results are not final yet."""
        job["status"] = "processing"
        job["progress"] = (job["progress"] + 100) // 2
        job["results"] = {"files": [{"filename": "part.webp"}]}

    def finish(self, job: Job, *, has_failed: bool = False) -> None:
        """End a job, with results in one of the shapes that the API is known or thought to have."""
        files = job["total_files"]
        job["status"] = "failed" if has_failed else "completed"
        job["completed_files" if not has_failed else "failed_files"] = files
        job["progress"] = job["progress"] if has_failed else 100
        job["error_message"] = "Unsupported codec." if has_failed else None
        job["results"] = None if has_failed else _results(self._random, files)
        job["completed_at"] = _text(_time(job["created_at"]) + timedelta(seconds=7 * files))

    def cancel(self, job: Job) -> None:
        """Take a pending job out of the account, as the API's `DELETE` does."""
        self.jobs = [other for other in self.jobs if other is not job]

    def unfinished(self) -> list[Job]:
        """List the jobs that have not ended, oldest first."""
        return [job for job in self.jobs if job["status"] not in FINAL_STATUSES]


def newest_first(jobs: list[Job]) -> list[Job]:
    """List jobs as a "recent jobs" view does."""
    return sorted(jobs, key=itemgetter("created_at"), reverse=True)


class Reply(NamedTuple):
    """What goes back over HTTP: text as it is, anything else as JSON; or a connection reset."""

    status: int
    body: Any
    headers: Mapping[str, str] = MappingProxyType({})
    is_reset: bool = False

    def send(self, request: BaseHTTPRequestHandler) -> None:
        """Send it."""
        if self.is_reset:
            hard = struct.pack("ii", 1, 0)  # closed without waiting for what was sent
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
            request.close_connection = True
            request.connection.close()
            return
        content = (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()
        usual = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        request.send_response(self.status)
        for name, value in (usual | dict(self.headers)).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


class DemoAPI:
    """`GET /api/jobs` over an account, computed from its state at each request.

    `order` sorts the list. `before_answer` is called with the account before each answer, one at
    a time, so that it may live on between any two of them. `fault` may give another reply for a
    query than the right one. `requests` has the queries so far.
    """

    def __init__(
        self,
        account: DemoAccount,
        key: str = DEMO_KEY,
        order: Callable[[list[Job]], list[Job]] = newest_first,
    ) -> None:
        self.account, self.key, self.order = account, key, order
        self.before_answer: Callable[[DemoAccount], None] = lambda _: None
        self.fault: Callable[[dict[str, str]], Reply | None] = lambda _: None
        self.requests: list[dict[str, str]] = []
        self.url = ""
        self._lock = Lock()

    def answer(self, query: dict[str, str], key: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """Answer a request as the API documents it."""
        if key != self.key:
            return HTTPStatus.UNAUTHORIZED, {
                "error": "Invalid API key." if key else "Missing API key."
            }
        limit, offset = query.get("limit", "20"), query.get("offset", "0")
        status = query.get("status")
        is_good = limit.isdecimal() and 1 <= int(limit) <= 100 and offset.isdecimal()
        if not is_good or status not in (None, *OPEN_STATUSES, *FINAL_STATUSES):
            return HTTPStatus.BAD_REQUEST, {"error": "Invalid query parameters."}
        return HTTPStatus.OK, self.page(int(limit), int(offset), status)

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Make one page of the list."""
        jobs = self.order([job for job in self.account.jobs if status in (None, job["status"])])
        pagination = {
            "limit": limit,
            "offset": offset,
            "total": len(jobs),
            "hasMore": offset + limit < len(jobs),
        }
        return {"jobs": jobs[offset : offset + limit], "pagination": pagination}

    @contextmanager
    def serve(self) -> Iterator["DemoAPI"]:
        """Listen on a free port of 127.0.0.1; `url` has the address."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                api.handle(self)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one HTTP request."""
        url = urlsplit(request.path)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        with self._lock:
            self.requests.append(query)
            self.before_answer(self.account)
            status, body = self.answer(query, bearer or request.headers.get("x-api-key", ""))
            if url.path != "/api/jobs":
                status, body = HTTPStatus.NOT_FOUND, {"error": "Not found."}
            reply = Reply(status, json.dumps(body))
        (self.fault(query) or reply).send(request)


def _results(random: Random, count: int) -> Any:
    """Make results of `count` files, in a shape of `random`'s choice."""
    files = [result_file(random, number) for number in range(count)]
    stored = {"id": files[0]["storedFileId"], "filename": "in.mp4", "mime_type": "video/mp4"}
    archive = {"filename": "assets.tgz", "downloadUrl": "data:application/gzip;base64,H4sIAAAA"}
    return random.choice(
        [
            {"files": files, "storage": {"saved": True, "notice": None}},
            {"files": [archive]},
            {"file": stored | {"size_bytes": random.randint(1, 2**36), "folder_id": None}},
            [{"filename": file["filename"], "download_url": file["downloadUrl"]} for file in files],
            [file["downloadUrl"] for file in files],
            files[0] | {"download_url": None},
            *(None, [], {}),
        ]
    )


def result_file(random: Random, number: int) -> dict[str, Any]:
    """Make one item of `results.files`."""
    size, saved = random.randint(10**4, 2**36), random.choice([92.6, 40, 7.25])
    return {
        "filename": f"hero-{number}.webp",
        "mimeType": "image/webp",
        "originalSize": size,
        "finalSize": int(size * (1 - saved / 100)),
        "savedPercent": saved,
        "appliedQuality": random.choice([82, 75.5]),
        "storedFileId": str(UUID(int=random.getrandbits(128), version=4)),
        "downloadUrl": f"https://files.convertly.sh/{number}.webp?token={random.getrandbits(64):x}",
    }


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
