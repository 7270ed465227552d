"""One page of `GET /api/jobs`, or an error that says what to do."""

import re
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import dlt
from dlt.common import logger
from dlt.common.json import json
from dlt.sources.helpers.requests import Client, RequestException, Response, Session
from dlt.sources.helpers.rest_client.auth import APIKeyAuth, BearerTokenAuth
from tenacity import RetryCallState, wait_random

from convertly_source.api.rate_limit import MINUTE, Pace
from convertly_source.errors import (
    ConvertlyError,
    LimitError,
    ResponseError,
    SettingsError,
    UnavailableError,
)

Job = dict[str, Any]
T = TypeVar("T", int, float)

AUTH_METHODS = ("bearer", "x-api-key")
OPEN_STATUSES = ("pending", "processing")
FINAL_STATUSES = ("completed", "failed")
REPORT = "Run again; if it stays, report it to the maintainers of convertly-source."
LONGEST_TRY = 2 * MINUTE  # for one page, but for a rate limit, which is sure to pass
MOST_BAD_BODIES = 3  # a body that is no JSON may have been cut short; not for ever
_ADDRESS = "Correct base_url (CONVERTLY_BASE_URL)."
_PLAN = (LimitError, "See the account's plan and usage at {plan}")
_REFUSALS: dict[int, tuple[type[ConvertlyError], str]] = {  # by status, or its first digit
    3: (SettingsError, "Set base_url to the address it redirects to."),
    400: (SettingsError, "A lower page_size may help."),
    401: (SettingsError, "Check the API key (CONVERTLY_API_KEY) and auth_method."),
    402: _PLAN,
    403: _PLAN,
    404: (SettingsError, _ADDRESS),
    408: (UnavailableError, "Run again later: it goes on where it stopped."),
    429: _PLAN,
    5: (UnavailableError, "Run again later: it goes on where it stopped."),
}


class Answer(NamedTuple):
    """A page as the API gave it: its jobs, in the API's order, and where they stand."""

    jobs: list[Job]
    offset: int
    total: int
    date: datetime | None = None  # the server's clock, in whole seconds, where the answer has it


class JobsClient:
    """Reads pages of an account's jobs. Safe to use from several threads.

    Retries what may pass (connections, 5xx, bodies cut short) for up to two minutes a page, with
    growing waits, and waits out the per-minute limit, all threads together. dlt's own settings
    `[runtime] request_max_attempts`, `request_backoff_factor`, `request_max_retry_delay` and
    `request_timeout` are honoured.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str,
        auth_method: str = "bearer",
        max_connections: int = 4,
        requests_per_minute: float | None = None,
    ) -> None:
        self._url = base_url.rstrip("/") + "/api/jobs"
        self._key = api_key
        self._pace = Pace(requests_per_minute)
        attributes = {
            "auth": _auth(api_key, auth_method),
            "trust_env": not self._is_local(),  # a proxy is for other hosts than this one
        }
        self._http = _PatientClient(self._pace, max_connections, attributes)

    @property
    def host(self) -> str:
        """The host that the account lives at, without port, path or credentials."""
        return urlsplit(self._url).hostname or ""

    def __repr__(self) -> str:
        return f"JobsClient({self._url!r}, api_key='***')"

    def page(self, offset: int, limit: int, status: str | None = None) -> Answer:
        """Ask for `limit` jobs from `offset`, of all states or in `status`.

        Raises one of `convertly_source.errors`. Source: "List jobs" of the API reference.
        """
        params = {"limit": limit, "offset": offset} | ({"status": status} if status else {})
        try:
            # A redirect would carry the key to another host.
            response = self._http.get(self._url, params=params, allow_redirects=False)
        except ValueError as error:  # of requests as of urllib3
            raise SettingsError(f"{self._url} is not a usable address.", _ADDRESS) from error
        except RequestException as error:
            raise UnavailableError(
                f"{self._url} could not be reached ({type(error).__name__}).",
                "Check the network and base_url, then run again: it goes on where it stopped.",
            ) from error
        if response.headers.get("x-ratelimit-remaining-minute") == "0":
            self._pace.hold(MINUTE)
        body = _parsed(response)
        if response.status_code != 200 or (body and body.get("error")):
            raise self._refusal(response, body or {})
        kind = response.headers.get("Content-Type", "of no content type")
        answer = _answer(body, offset, self._shown(kind))
        return answer._replace(date=_date(response.headers.get("Date", "")))

    def _is_local(self) -> bool:
        """Refuse an address that the key should not be sent to; tell whether it is this machine."""
        try:
            url = urlsplit(self._url)
            is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise SettingsError(f"{self._url} is not a usable address.", _ADDRESS)
        if url.username or url.password:
            raise SettingsError("base_url has a user name or a password in it.", _ADDRESS)
        is_local = is_loopback(url.hostname or "")
        if url.scheme == "http" and not is_local:
            raise SettingsError(
                f"{self._url} is not encrypted: everyone on the way could read the API key.",
                "Use an https:// address; http:// is for this machine (127.0.0.1) only.",
            )
        return is_local

    def _refusal(self, response: Response, body: Mapping[str, Any]) -> ConvertlyError:
        code = response.status_code
        kind, remedy = _REFUSALS.get(code) or _REFUSALS.get(code // 100) or (ResponseError, REPORT)
        reason = body.get("error") or body.get("detail") or response.reason or "no reason given"
        said = f"The API answered {code}: {reason}"
        if 300 <= code < 400:
            to = response.headers.get("Location", "an address it does not name")
            said = f"{self._url} redirects to {to.partition('?')[0]}."
        plan = str(body.get("upgradeUrl") or "https://convertly.sh")
        return kind(self._shown(said), remedy.format(plan=self._shown(plan)))

    def _shown(self, text: str) -> str:
        """Make what the API said fit to be shown: without the key, printable and short."""
        safe = text.replace(self._key, "***")[:300]
        return "".join(char if char.isprintable() else " " for char in safe)


class _PatientClient(Client):
    """dlt's client, with jitter, an end, one log line a retry, and one pace for all threads."""

    def __init__(self, pace: Pace, max_connections: int, session_attrs: dict[str, Any]) -> None:
        self._pace = pace
        super().__init__(
            request_timeout=_runtime("request_timeout", 60.0),
            max_connections=max_connections,
            raise_for_status=False,
            status_codes=(408, *range(500, 600)),
            retry_condition=[_is_rate_limited, _is_cut_short],
            request_max_attempts=_runtime("request_max_attempts", 7),
            request_backoff_factor=_runtime("request_backoff_factor", 1.0),
            request_max_retry_delay=_runtime("request_max_retry_delay", 300.0),
            session_attrs=session_attrs,
        )

    def _make_session(self) -> Session:
        session = super()._make_session()
        retrying = session.send.retry  # type: ignore[attr-defined]  # tenacity's, around `send`
        jitter = wait_random(0, self._retry_kwargs["backoff_factor"])
        usual_wait = retrying.wait + jitter

        def wait(state: RetryCallState) -> float:
            seconds: float = usual_wait(state)
            response = _response(state)
            if response is not None and response.status_code == 429:
                if "Retry-After" not in response.headers:
                    seconds = MINUTE
                self._pace.hold(seconds)
            return seconds

        retrying.before = lambda _: self._pace.wait()
        retrying.wait = wait
        retrying.stop |= _is_enough
        retrying.before_sleep = _log
        return session


def _response(state: RetryCallState) -> Response | None:
    outcome = state.outcome
    return None if outcome is None or outcome.failed else outcome.result()


def _is_enough(state: RetryCallState) -> bool:
    """Whether to give up before the attempts are used up."""
    response = _response(state)
    if response is not None and response.status_code == 200:
        return state.attempt_number >= MOST_BAD_BODIES
    is_limited = response is not None and response.status_code == 429
    return not is_limited and (state.seconds_since_start or 0) >= LONGEST_TRY


def _log(state: RetryCallState) -> None:
    response = _response(state)
    if response is None:
        error = state.outcome and state.outcome.exception()
        what = f"The API could not be reached ({type(error).__name__})"
    else:
        what = f"The API answered {response.status_code}"
    logger.warning(f"{what}; trying again in {state.upcoming_sleep:.0f} s.")


def _auth(api_key: str, method: str) -> BearerTokenAuth | APIKeyAuth:
    if method not in AUTH_METHODS:
        allowed = f"Use one of: {', '.join(AUTH_METHODS)}."
        raise SettingsError(f"Invalid auth_method {method!r}.", allowed, setting="auth_method")
    if not re.fullmatch("[!-~]+", api_key):
        raise SettingsError(
            "The API key is empty or has characters that a key can't have.",
            "Copy the key again (CONVERTLY_API_KEY), without spaces or line breaks.",
        )
    if method == "bearer":
        return BearerTokenAuth(token=api_key)
    return APIKeyAuth(name="x-api-key", api_key=api_key)


def _runtime(name: str, default: T) -> T:
    value = dlt.config.get(f"runtime.{name}", type(default))
    return default if value is None else value


def _is_rate_limited(response: Response | None, _: BaseException | None) -> bool:
    """Whether to wait: the monthly cap is a 429 as well, and waiting for it is useless."""
    if response is None or response.status_code != 429:
        return False
    month_is_used_up = response.headers.get("x-ratelimit-remaining-month") == "0"
    body = _parsed(response) or {}
    said = " ".join(str(body.get(name)) for name in ("error", "code", "detail"))
    return not (month_is_used_up or "month" in said.lower())


def _is_cut_short(response: Response | None, _: BaseException | None) -> bool:
    return response is not None and response.status_code == 200 and _parsed(response) is None


def _parsed(response: Response) -> dict[str, Any] | None:
    """Parse the body, once; what is no JSON object gives None."""
    known = vars(response)
    if "parsed" not in known:
        try:
            body = json.loadb(response.content)
        except ValueError:
            body = None
        known["parsed"] = body if isinstance(body, dict) else None
    parsed: dict[str, Any] | None = known["parsed"]
    return parsed


def _answer(body: Mapping[str, Any] | None, offset: int, kind: str) -> Answer:
    """Check a page. What is wrong is said without a word of it, as it may hold anything."""
    page = f"The answer at offset {offset}"
    if body is None:
        raise ResponseError(f"{page} is not a JSON object but {kind}.", REPORT)
    jobs, pagination = body.get("jobs"), body.get("pagination")
    if not (isinstance(jobs, list) and all(isinstance(job, dict) for job in jobs)):
        raise ResponseError(f"{page} has no list of objects as `jobs`.", REPORT)
    numbers = pagination if isinstance(pagination, dict) else {}
    if not all(_is_count(numbers.get(key)) for key in ("offset", "total")):
        raise ResponseError(f"{page} has no `pagination.offset` and `total` from 0 up.", REPORT)
    if numbers["offset"] != offset:
        raise ResponseError(f"{page} says that it is at offset {numbers['offset']}.", REPORT)
    return Answer(jobs, offset, numbers["total"])


def _date(text: str) -> datetime | None:
    """Parse a `Date` header; None without a usable one."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date.replace(tzinfo=date.tzinfo or timezone.utc)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < sys.maxsize


def is_loopback(name: str) -> bool:
    """Whether that host is this machine."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
