"""One request over HTTP: what is sent, what is waited for, and what each bad answer becomes."""

import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from dlt.common.exceptions import TerminalException, TransientException
from helpers.warehouse import Warehouse

from convertly_source import errors
from convertly_source.api.client import JobsClient, parse_date
from convertly_source.demo import DemoAccount, DemoAPI, Reply

KEY = "cvly_0123456789/abc+def=="
NOBODY = "http://127.0.0.1:1"  # no server is there
Serve = Callable[[DemoAPI], DemoAPI]
Error = errors.ConvertlyError


AT_0 = {"offset": 0, "total": 0}
GOOD = Reply(200, {"jobs": [], "pagination": AT_0})
BUSY, LIMITED = Reply(503, {"error": "Queue down."}), Reply(429, {"error": "60 per minute."})
TORN = Reply(200, "{", {"Content-Length": "99", "Connection": "close"})
NO_JSON, RESET = Reply(200, '{"jobs": ['), Reply(0, "", is_reset=True)
LATE = Reply(502, "<html>", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
NOT_THE_CAP, CAP = (Reply(429, {}, {"x-ratelimit-remaining-month": left}) for left in ("10", "0"))
LEFT_NONE = GOOD._replace(headers={"x-ratelimit-remaining-minute": "0"})
CAP_TOLD = [Reply(429, {name: "Monthly cap reached."}) for name in ("error", "code", "detail")]
HEADERS = {"bearer": {"Authorization": f"Bearer {KEY}"}, "x-api-key": {"x-api-key": KEY}}
NO_KEYS = ("", " ", "cvly a", "cvly_a\n", "\tcvly_a", "cvly_\u00e4", "a\x7f")
FAR = ("http://example.com", "http://127.0.0.1.example.com", "http://10.0.0.1")
NO_URLS = ("", "no-scheme", "ftp://x", "http://[::1", "http://a:99999", "https://.x")
NO_COUNTS: list[Any] = ["1", 1.0, True, -1, 2**64, None]
NO_PAGINATION = [None, [0, 1], {"offset": 0}, *({"offset": 0, "total": bad} for bad in NO_COUNTS)]
AGAIN = "Run again later: it continues"
STATUSES = {  # class, exit code, requests, advice
    301: (errors.SettingsError, 2, 1, "Set base_url to"),
    **dict.fromkeys(range(400, 500), (errors.ResponseError, 4, 1, "report it to the maintainers")),
    400: (errors.SettingsError, 2, 1, "page_size"),
    401: (errors.SettingsError, 2, 1, "CONVERTLY_API_KEY"),
    **dict.fromkeys(
        (402, 403), (errors.LimitError, 5, 1, "usage of the account at https://up.example")
    ),
    404: (errors.SettingsError, 2, 1, "CONVERTLY_BASE_URL"),
    408: (errors.UnavailableError, 3, 7, AGAIN),
    429: (errors.LimitError, 5, 7, "usage of the account at https://up.example"),
    **dict.fromkeys(range(500, 600), (errors.UnavailableError, 3, 7, AGAIN)),
}
NO_PAGES = [
    *((200, bad, "at offset 0 is not a JSON object but text/html") for bad in ("<b>Sign", "[1]")),
    (200, {"error": "Nothing."}, "answered 200: Nothing."),
    (418, {"detail": "Some."}, "answered 418: Some."),
    (418, {}, "answered 418: I'm a Teapot"),
    (499, "<b>", "answered 499: no reason given"),
    *((200, {"jobs": x, "pagination": AT_0}, "no list as `jobs`") for x in (None, AT_0, "[]")),
    *((200, {"jobs": [], "pagination": bad}, "no `pagination") for bad in NO_PAGINATION),
    (200, {"jobs": [], "pagination": {"offset": 9, "total": 10}}, "0 claims to be at offset 9"),
]
ECHOES = [
    Reply(401, {"error": "x" * 265 + KEY}),  # where the text is cut
    Reply(403, {"error": "No.", "upgradeUrl": f"https://convertly.sh/?key={KEY}"}),
    Reply(200, f"\x1b[31m\r\n{KEY}", {"Content-Type": KEY}),
    Reply(301, {}, {"Location": f"https://elsewhere.example/{KEY}?key={KEY}"}),
]
NO_SETTINGS = [
    *(((NOBODY, key), "has spaces or characters", "CONVERTLY_API_KEY") for key in NO_KEYS),
    ((NOBODY, "cvly a", "x-api-key"), "has spaces or characters", "CONVERTLY_API_KEY"),
    *(((url,), f"{url}/api/jobs is not a usable", "CONVERTLY_BASE_URL") for url in NO_URLS),
    *(((url,), f"{url}/api/jobs is not encrypted", "https://") for url in FAR),
    (("https://cvly:pass@a.example",), "a user name or a password", "CONVERTLY_BASE_URL"),
    ((NOBODY, KEY, "Bearer"), "Invalid auth_method 'Bearer'.", "Use one of: bearer, x-api-key."),
]


class Scripted(DemoAPI):
    """A server that gives the replies one after the other, and then the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(DemoAccount(0))
        self.replies = replies
        self.seen: list[tuple[str, dict[str, str]]] = []

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one HTTP request."""
        self.seen.append((request.path, dict(request.headers)))
        self.replies[min(len(self.seen), len(self.replies)) - 1].send(request)


class Clock:
    """A clock that does not wait: it lists the seconds that would have been waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.waits.append(seconds)

    def monotonic(self) -> float:
        """Say how late it is."""
        return sum(self.waits)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Wait by default settings, on a clock that does not wait."""
    clock = Clock()
    monkeypatch.delenv("RUNTIME__REQUEST_BACKOFF_FACTOR")
    for module in ("tenacity.nap.time", "convertly_source.api.http.time"):
        monkeypatch.setattr(module, clock)
    monkeypatch.setattr("convertly_source.api.http.MINUTE", 60.0)
    return clock


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
    assert [page[:3] for page in pages] == [
        (jobs[at : at + 9], at, len(jobs)) for at in range(0, 260, 9)
    ]


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_becomes_an_error_that_says_what_to_do(serve: Serve, status: int) -> None:
    """Each status has its error class, exit code and advice; only what may pass is retried."""
    body = {"error": "Why.", "upgradeUrl": "https://up.example"}
    api = Scripted(Reply(status, body, {"Location": "Why."}))
    error = failure(serve(api).url)
    assert (type(error), error.exit_code, len(api.seen)) == STATUSES[status][:3]
    assert STATUSES[status][3] in error.remedy
    assert "Why." in str(error)
    may_pass = error.exit_code == 3
    assert isinstance(error, TransientException if may_pass else TerminalException)


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """The host that a redirect names is shown, and gets neither a request nor the key."""
    other = Scripted(GOOD)
    api = Scripted(Reply(307, {}, {"Location": serve(other).url + "/api/jobs"}))
    assert f"redirects to {other.url}/api/jobs" in str(failure(serve(api).url))
    assert (len(api.seen), other.seen) == (1, [])


@pytest.mark.parametrize(
    "reply",
    [BUSY, LIMITED, Reply(429, "slow"), NOT_THE_CAP, LATE, TORN, NO_JSON, RESET],
)
def test_what_may_pass_is_asked_for_again(serve: Serve, reply: Reply) -> None:
    """A 5xx, a per-minute 429, a cut or reset answer, even twice, is followed by the good one."""
    api = serve(Scripted(reply, reply, GOOD))
    assert JobsClient(KEY, api.url).page(0, 100)[:3] == ([], 0, 0)


@pytest.mark.parametrize("reply", [CAP, *CAP_TOLD])
def test_the_monthly_cap_is_not_waited_for(serve: Serve, reply: Reply) -> None:
    """A 429 that is the monthly cap, by its header or its text, is not asked for again."""
    api = Scripted(reply)
    failure(serve(api).url, kind=errors.LimitError)
    assert len(api.seen) == 1


def test_waits_grow_with_jitter(serve: Serve, clock: Clock) -> None:
    """By default 63 seconds are waited in all, and up to a second more each time."""
    failure(serve(Scripted(BUSY)).url)
    assert [int(seconds) for seconds in clock.waits] == [1, 2, 4, 8, 16, 32]
    assert len({seconds % 1 for seconds in clock.waits}) > 1


def test_a_rate_limit_is_waited_for(serve: Serve, clock: Clock) -> None:
    """What Retry-After says is waited, up to 300 seconds; without it, a minute."""
    at = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=40, milliseconds=500))
    late = [Reply(429, {}, {"Retry-After": after}) for after in ("17", "9999", at)]
    JobsClient(KEY, serve(Scripted(*late, LIMITED, GOOD)).url).page(0, 100)
    assert [int(seconds) for seconds in clock.waits] in ([17, 300, at, 60] for at in (39, 40, 41))


def test_threads_wait_together(serve: Serve, clock: Clock) -> None:
    """When one is refused, or told that it was the last of a minute, the others wait as well."""
    api = serve(Scripted(LIMITED, LEFT_NONE, GOOD))
    client = JobsClient(KEY, api.url)
    client.page(0, 100)
    assert clock.waits == [60]
    with ThreadPoolExecutor(1) as other:
        for _ in range(2):
            other.submit(client.page, 0, 100).result()
            assert clock.waits == [60, 60]


def test_requests_are_paced(serve: Serve, clock: Clock) -> None:
    """With requests_per_minute, requests are spaced evenly from the first one on."""
    client = JobsClient(KEY, serve(Scripted(GOOD)).url, requests_per_minute=40)
    for _ in range(4):
        client.page(0, 100)
    assert clock.waits == [1.5, 1.5, 1.5]


def test_a_limit_of_15_a_minute_is_kept_by_all_threads(
    warehouse: Warehouse, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a limit without Retry-After, 2,500 jobs arrive whole, and few requests are refused."""
    monkeypatch.setattr("convertly_source.api.http.MINUTE", 0.8)
    api = DemoAPI(DemoAccount(2500))
    answered, refused = deque[float](maxlen=15), [0]

    def limit(_: dict[str, str]) -> Reply | None:
        if len(answered) == 15 and time.monotonic() - answered[0] < 0.7:
            refused[0] += 1
            return LIMITED
        answered.append(time.monotonic())
        return None

    api.fault = limit
    warehouse.load(serve(api))
    assert len(warehouse.rows("jobs", "id")) == 2500
    assert 0 < refused[0] <= len(api.requests) / 3


def test_a_timeout_is_not_repeated_for_ever(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two minutes with one page no further request is made, whatever attempts are left."""
    monkeypatch.setattr("convertly_source.api.http.MAX_RETRY_SECONDS", 0)
    api = Scripted(BUSY)
    failure(serve(api).url, kind=errors.UnavailableError)
    assert len(api.seen) == 1
    limited = serve(Scripted(LIMITED, LIMITED, GOOD))
    assert JobsClient(KEY, limited.url).page(0, 100)[:3] == ([], 0, 0)


def test_each_retry_is_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A retry is logged with its reason and its wait, in one line without the key."""
    JobsClient(KEY, serve(Scripted(BUSY, TORN, GOOD)).url).page(0, 100)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == [
        "The API answered 503; trying again in 0 s.",
        "The API could not be reached (ChunkedEncodingError); trying again in 0 s.",
    ]


def test_dlts_own_settings_are_honoured(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often and how long to try is as dlt's settings say; a silent server is given up."""
    for name, value in {"max_attempts": "3", "max_retry_delay": "7.5", "timeout": "0.5"}.items():
        monkeypatch.setenv(f"RUNTIME__REQUEST_{name.upper()}", value)
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "5")
    failure(serve(Scripted(BUSY)).url)
    first, second = clock.waits  # between three requests
    assert 5 <= first < 10
    assert 7.5 <= second < 12.5
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "(ReadTimeout)" in str(failure(f"http://127.0.0.1:{silent.getsockname()[1]}"))


def test_a_page_has_the_time_of_its_answer(serve: Serve) -> None:
    """The `Date` header of an answer is the date of its page, in UTC."""
    page = JobsClient(KEY, serve(Scripted(GOOD)).url).page(0, 100)
    assert page.date
    assert abs((datetime.now(timezone.utc) - page.date).total_seconds()) < 60


@pytest.mark.parametrize(
    ("header", "date"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", "2015-10-21T07:28:00+00:00"),
        ("Wed, 21 Oct 2015 07:28:00 -0000", "2015-10-21T07:28:00+00:00"),
        ("Wed, 21 Oct 2015 09:28:00 +0200", "2015-10-21T07:28:00+00:00"),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -1200", None),
        *((text, None) for text in ("", "soon", None)),
    ],
)
def test_a_date_header_is_read_or_ignored(header: str | None, date: str | None) -> None:
    """A date is an aware time in UTC; a header that is none gives None."""
    found = parse_date(header)
    assert (found and found.isoformat()) == date
    assert found is None or found.tzinfo is timezone.utc


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


def test_the_client_names_its_host_and_hides_its_key() -> None:
    """An account is named by its host alone; the key is not in the text of what holds it."""
    client = JobsClient(KEY, "https://Convertly.sh:8443/proxy?x=1")
    assert client.host == "convertly.sh"
    assert (
        repr(client) == "JobsClient('https://Convertly.sh:8443/proxy?x=1/api/jobs', api_key='***')"
    )
    assert "cvly" not in "".join(map(repr, vars(client)["_http"]._session_attrs.values()))
