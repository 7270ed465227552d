"""One request over HTTP: what is sent, what is waited for, and what each bad answer becomes."""

import json
import socket
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import pytest
from dlt.common.exceptions import TerminalException, TransientException

from convertly_source import errors
from convertly_source.client import Answer, JobsClient, host
from convertly_source.demo import DemoAccount, DemoAPI

KEY = "cvly_0123456789/abc+def=="
NOBODY = "http://127.0.0.1:1"  # no server is there
Serve = Callable[[DemoAPI], DemoAPI]
Error = errors.ConvertlyError


class Reply(NamedTuple):
    """What the server says: text goes out as it is, all else as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] | None = None


AT_0 = {"offset": 0, "total": 0}
GOOD = Reply(200, {"jobs": [], "pagination": AT_0})
BUSY, LIMITED = Reply(503, {"error": "Queue down."}), Reply(429, {"error": "60 per minute."})
TORN = Reply(200, "{", {"Content-Length": "99", "Connection": "close"})
LATE = Reply(502, "<html>", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
NOT_THE_CAP, CAP = (Reply(429, {}, {"x-ratelimit-remaining-month": left}) for left in ("10", "0"))
CAP_TOLD = [Reply(429, {name: "Monthly cap reached."}) for name in ("error", "code", "detail")]
HEADERS = {"bearer": {"Authorization": f"Bearer {KEY}"}, "x-api-key": {"x-api-key": KEY}}
NO_KEYS = ("", " ", "cvly a", "cvly_a\n", "\tcvly_a", "cvly_\u00e4", "a\x7f")
NO_URLS = ("", "no-scheme", "ftp://x", "http://[::1", "http://a:99999")
NO_PAGINATION: list[Any] = [None, [0, 1], {"offset": 0}, {"offset": 0, "total": "1"}]
STATUSES = {  # class, exit code, requests, advice
    301: (errors.SettingsError, 2, 1, "Set base_url to"),
    400: (errors.SettingsError, 2, 1, "page_size"),
    401: (errors.SettingsError, 2, 1, "CONVERTLY_API_KEY"),
    **dict.fromkeys((402, 403), (errors.LimitError, 5, 1, "plan and usage at https://up.example")),
    404: (errors.SettingsError, 2, 1, "CONVERTLY_BASE_URL"),
    418: (errors.ResponseError, 4, 1, "report it to the maintainers"),
    429: (errors.LimitError, 5, 7, "plan and usage at https://up.example"),
    **dict.fromkeys((500, 503), (errors.UnavailableError, 3, 7, "Run again later")),
}
NO_PAGES = [
    (200, "<b>Sign in</b>", "not a JSON object but text/html: <b>Sign in</b>"),
    *((200, bad, "not a JSON object") for bad in ("\xff\x00", [{"id": "a"}])),
    (200, {"error": "Nothing."}, "answered 200: Nothing."),
    (418, {"detail": "Some."}, "answered 418: Some."),
    (418, {}, "answered 418: I'm a Teapot"),
    (499, {}, "answered 499: no reason given"),
    *((200, {"jobs": x, "pagination": AT_0}, "no list of jobs") for x in (None, AT_0, [AT_0, 1])),
    *((200, {"jobs": [], "pagination": bad}, "no pagination") for bad in NO_PAGINATION),
    (200, {"jobs": [], "pagination": {"offset": 9, "total": 10}}, "0 and answered offset 9"),
]
ECHOES = [
    Reply(401, {"error": "x" * 265 + KEY}),  # where the text is cut
    Reply(403, {"error": "No.", "upgradeUrl": f"https://convertly.sh/?key={KEY}"}),
    Reply(200, f"\x1b[31m\r\n{KEY}", {"Content-Type": KEY}),
    Reply(301, {}, {"Location": f"https://elsewhere.example/?key={KEY}"}),
]
NO_SETTINGS = [
    *(((NOBODY, key), "can't have.", "CONVERTLY_API_KEY") for key in NO_KEYS),
    ((NOBODY, "cvly a", "x-api-key"), "can't have.", "CONVERTLY_API_KEY"),
    *(((url,), f"{url}/api/jobs is not a usable", "CONVERTLY_BASE_URL") for url in NO_URLS),
    ((NOBODY, KEY, "Bearer"), "auth_method is 'Bearer'.", "Use one of bearer, x-api-key."),
]


class Scripted(DemoAPI):
    """A server that gives the replies one after the other, and then the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(DemoAccount(0))
        self.replies = replies
        self.seen: list[tuple[str, dict[str, str]]] = []

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one HTTP request."""
        status, body, headers = self.replies[min(len(self.seen), len(self.replies) - 1)]
        self.seen.append((request.path, dict(request.headers)))
        content = (body if isinstance(body, str) else json.dumps(body)).encode("latin-1")
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """List the seconds that would be waited, by default settings, instead of waiting."""
    seconds: list[float] = []
    monkeypatch.delenv("RUNTIME__REQUEST_BACKOFF_FACTOR")
    monkeypatch.setattr("tenacity.nap.time.sleep", seconds.append)
    return seconds


def failure(url: str, key: str = KEY, way: str = "bearer", *, kind: type[Error] = Error) -> Error:
    """Ask for the first page, which must fail."""
    with pytest.raises(kind) as caught:
        JobsClient(key, url, way).page(0, 100)
    return caught.value


@pytest.mark.parametrize("method", HEADERS)
def test_the_key_is_sent_as_auth_method_says(serve: Serve, method: str) -> None:
    """The key goes in the documented header of the auth_method, and in no other."""
    api = Scripted(GOOD)
    JobsClient(KEY, serve(api).url + "/proxy/", method).page(0, 100)
    [(path, headers)] = api.seen
    assert path == "/proxy/api/jobs?limit=100&offset=0"
    assert {name: sent for name, sent in headers.items() if KEY in sent} == HEADERS[method]


@pytest.mark.parametrize("status", [None, "failed"])
def test_threads_share_a_client(serve: Serve, status: str | None) -> None:
    """Each of several threads gets the page it asked for, in the status it asked for."""
    api = serve(DemoAPI(DemoAccount(250), KEY))
    client = JobsClient(KEY, api.url)
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda at: client.page(at, 9, status), range(0, 260, 9)))
    jobs = [job for job in reversed(api.account.jobs) if status in (None, job["status"])]
    assert pages == [Answer(jobs[at : at + 9], at, len(jobs)) for at in range(0, 260, 9)]


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_becomes_an_error_that_says_what_to_do(serve: Serve, status: int) -> None:
    """Each status has its error class, exit code and advice; only what may pass is retried."""
    body = {"error": "Why.", "upgradeUrl": "https://up.example"}
    api = Scripted(Reply(status, body, {"Location": "Why."}))
    error = failure(serve(api).url)
    assert (type(error), error.exit_code, len(api.seen)) == STATUSES[status][:3]
    assert STATUSES[status][3] in error.remedy
    assert "Why." in str(error)
    assert isinstance(error, TransientException if status >= 500 else TerminalException)


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """The host that a redirect names is shown, and gets neither a request nor the key."""
    other = Scripted(GOOD)
    api = Scripted(Reply(307, {}, {"Location": serve(other).url + "/api/jobs"}))
    assert f"redirects to {other.url}/api/jobs" in str(failure(serve(api).url))
    assert (len(api.seen), other.seen) == (1, [])


@pytest.mark.parametrize("reply", [BUSY, LIMITED, Reply(429, "slow"), NOT_THE_CAP, LATE, TORN])
def test_what_may_pass_is_asked_for_again(serve: Serve, reply: Reply) -> None:
    """A 5xx, a per-minute 429 or a torn answer, even twice, is followed by the good answer."""
    api = serve(Scripted(reply, reply, GOOD))
    assert JobsClient(KEY, api.url).page(0, 100) == Answer([], 0, 0)


@pytest.mark.parametrize("reply", [CAP, *CAP_TOLD])
def test_the_monthly_cap_is_not_waited_for(serve: Serve, reply: Reply) -> None:
    """A 429 that is the monthly cap, by its header or its text, is not asked for again."""
    api = Scripted(reply)
    failure(serve(api).url, kind=errors.LimitError)
    assert len(api.seen) == 1


def test_waiting_outlasts_the_minute_window(serve: Serve, waits: list[float]) -> None:
    """By default 63 seconds are waited, and as long as Retry-After says, up to 300 a time."""
    failure(serve(Scripted(LIMITED)).url)
    late = [Reply(429, {}, {"Retry-After": after}) for after in ("17", "9999")]
    JobsClient(KEY, serve(Scripted(*late, GOOD)).url).page(0, 100)
    assert waits == [1, 2, 4, 8, 16, 32, 17, 300]


def test_dlts_own_settings_are_honoured(
    serve: Serve, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often and how long to try is as dlt's settings say; a silent server is given up."""
    for name, value in {"max_attempts": "3", "max_retry_delay": "7.5", "timeout": "0.5"}.items():
        monkeypatch.setenv(f"RUNTIME__REQUEST_{name.upper()}", value)
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "5")
    failure(serve(Scripted(BUSY)).url)
    assert waits == [5, 7.5]  # between three requests
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "(ReadTimeout)" in str(failure(f"http://127.0.0.1:{silent.getsockname()[1]}"))


def test_an_unreachable_port_is_unavailable() -> None:
    """A server that is not there is an error to run again after, and names the address."""
    error = failure(NOBODY, kind=errors.UnavailableError)
    assert f"{NOBODY}/api/jobs could not be reached" in str(error)
    assert "Check the network" in error.remedy


@pytest.mark.parametrize(("status", "body", "text"), NO_PAGES)
def test_what_is_no_page_is_refused(serve: Serve, status: int, body: Any, text: str) -> None:
    """An answer that is not the page asked for is an error that says why, not an empty page."""
    api = serve(Scripted(Reply(status, body, {"Content-Type": "text/html"})))
    error = failure(api.url, kind=errors.ResponseError)
    assert text in str(error)
    assert "report it" in error.remedy


@pytest.mark.parametrize("reply", ECHOES)
def test_the_key_is_never_shown(serve: Serve, reply: Reply) -> None:
    """No part of the key is in an error, its causes or its advice; it is short and printable."""
    error = failure(serve(Scripted(reply)).url)
    assert "***" in str(error) + error.remedy
    assert "cvly" not in "".join(traceback.format_exception(error)) + error.remedy
    assert f"{error}{error.remedy}".isprintable()
    assert len(str(error)) <= 300


@pytest.mark.parametrize(("settings", "text", "advice"), NO_SETTINGS)
def test_unusable_settings_are_refused(settings: tuple[str, ...], text: str, advice: str) -> None:
    """A key that no header can carry, an unknown auth_method or no address: change the setting."""
    error = failure(*settings, kind=errors.SettingsError)
    assert text in str(error)
    assert "cvly" not in str(error)
    assert advice in error.remedy


def test_host_names_the_account() -> None:
    """An account is named by its host alone, and by the whole setting when that has none."""
    assert host("https://user:password@Convertly.sh:8443/proxy?x=1") == "convertly.sh"
    assert [host(url) for url in ("no-scheme", "http://[::1")] == ["no-scheme", "http://[::1"]
