"""The jobs API of a demo account, on 127.0.0.1 only."""

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from threading import Lock, Thread
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, Job
from convertly_source.demo.account import DemoAccount

DEMO_KEY = "cvly_demo"


def newest_first(jobs: list[Job]) -> list[Job]:
    """List jobs as a "recent jobs" view does."""
    return sorted(jobs, key=itemgetter("created_at"), reverse=True)


class Reply(NamedTuple):
    """What goes back over HTTP: text and bytes as they are, anything else as JSON; or a reset."""

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
        text = self.body if isinstance(self.body, (str, bytes)) else json.dumps(self.body)
        content = text.encode() if isinstance(text, str) else text
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
