"""HTTP requests that are repeated when it helps, within the rate limit of the API.

A request that fails (no connection, 408, 5xx) is by default tried 7 times, in about a minute, and
not again once two minutes have passed. A 200 that is no JSON object is tried 3 times.
"""

import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import dlt
from dlt.common import logger
from dlt.sources.helpers.requests import Client, Response, Session
from tenacity import RetryCallState, wait_random

from convertly_source.api.body import parse_body

MINUTE = 60.0  # seconds; the API counts requests per minute, and does not say when one begins
MAX_RETRY_SECONDS = 2 * MINUTE  # per page; a rate limit may take longer, since it always ends
MAX_BROKEN_BODIES = 3  # answers with status 200 that are no JSON: they may have been cut short

T = TypeVar("T", int, float)


class RateLimiter:
    """Decides when the next request may be sent, for all threads together, and counts them."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._lock = Lock()
        self._opens_at = 0.0
        self.requests = 0  # that were let pass, repeated ones too

    def wait(self) -> None:
        """Return when a request may be sent."""
        while (seconds := self._seconds_left()) > 0:
            time.sleep(seconds)

    def pause(self, seconds: float | None = None) -> None:
        """Let no request pass for that many seconds, by default a minute."""
        seconds = MINUTE if seconds is None else seconds
        with self._lock:
            self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def _seconds_left(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now >= self._opens_at:
                self._opens_at = now + self._interval
                self.requests += 1
                return 0.0
            return self._opens_at - now


class RetryingClient(Client):
    """dlt's HTTP client with jitter, a time limit, one log line per retry, and a rate limiter.

    dlt's settings `[runtime] request_max_attempts`, `request_backoff_factor`,
    `request_max_retry_delay` and `request_timeout` apply.
    """

    def __init__(
        self, rate_limiter: RateLimiter, max_connections: int, session_attrs: dict[str, Any]
    ) -> None:
        self._rate_limiter = rate_limiter
        super().__init__(
            request_timeout=_runtime_setting("request_timeout", 60.0),
            max_connections=max_connections,
            raise_for_status=False,
            status_codes=(408, *range(500, 600)),
            retry_condition=[_is_rate_limited, _has_broken_body],
            request_max_attempts=_runtime_setting("request_max_attempts", 7),
            request_backoff_factor=_runtime_setting("request_backoff_factor", 1.0),
            request_max_retry_delay=_runtime_setting("request_max_retry_delay", 300.0),
            session_attrs=session_attrs,
        )

    def _make_session(self) -> Session:
        session = super()._make_session()
        retrying = session.send.retry  # type: ignore[attr-defined]  # tenacity's, around `send`
        jitter = wait_random(0, self._retry_kwargs["backoff_factor"])
        retrying.before = lambda _: self._rate_limiter.wait()
        retrying.wait = partial(self._seconds_to_wait, retrying.wait + jitter)
        retrying.stop |= _is_enough
        retrying.before_sleep = _log_retry
        return session

    def _seconds_to_wait(
        self, usual_wait: Callable[[RetryCallState], float], state: RetryCallState
    ) -> float:
        seconds = usual_wait(state)
        response = _response(state)
        if response is not None and response.status_code == 429:
            if "Retry-After" not in response.headers:
                seconds = MINUTE
            self._rate_limiter.pause(seconds)
        return seconds


def parsed_body(response: Response) -> dict[str, Any] | None:
    """Return the JSON object in the body, None if it is anything else; parse it only once."""
    if not hasattr(response, "parsed_body"):
        try:
            body = parse_body(response.content)
        except ValueError:
            body = None
        response.parsed_body = body if isinstance(body, dict) else None  # type: ignore[attr-defined]
    parsed: dict[str, Any] | None = response.parsed_body  # type: ignore[attr-defined]
    return parsed


def _runtime_setting(name: str, default: T) -> T:
    value = dlt.config.get(f"runtime.{name}", type(default))
    return default if value is None else value


def _response(state: RetryCallState) -> Response | None:
    outcome = state.outcome
    return None if outcome is None or outcome.failed else outcome.result()


def _is_rate_limited(response: Response | None, _: BaseException | None) -> bool:
    """Whether waiting helps. It does not for the monthly cap, which is a 429 too."""
    if response is None or response.status_code != 429:
        return False
    is_month_used_up = response.headers.get("x-ratelimit-remaining-month") == "0"
    body = parsed_body(response) or {}
    message = " ".join(str(body.get(name)) for name in ("error", "code", "detail"))
    return not (is_month_used_up or "month" in message.lower())


def _has_broken_body(response: Response | None, _: BaseException | None) -> bool:
    return response is not None and response.status_code == 200 and parsed_body(response) is None


def _is_enough(state: RetryCallState) -> bool:
    """Whether to give up before the attempts are used up."""
    response = _response(state)
    if response is not None and response.status_code == 200:
        return state.attempt_number >= MAX_BROKEN_BODIES
    is_limited = response is not None and response.status_code == 429
    return not is_limited and (state.seconds_since_start or 0) >= MAX_RETRY_SECONDS


def _log_retry(state: RetryCallState) -> None:
    response = _response(state)
    if response is None:
        error = state.outcome and state.outcome.exception()
        what = f"The API could not be reached ({type(error).__name__})"
    else:
        what = f"The API answered {response.status_code}"
    logger.warning(f"{what}; trying again in {state.upcoming_sleep:.0f} s.")
