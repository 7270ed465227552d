"""One page of `GET /api/jobs`, or an error whose class says what to do."""

import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dlt.sources.helpers.requests import RequestException, Response

from convertly_source.api.auth import check_address, is_loopback, make_auth, unusable_address
from convertly_source.api.http import RateLimiter, RetryingClient, parsed_body
from convertly_source.errors import (
    REPORT,
    ConvertlyError,
    LimitError,
    ResponseError,
    SettingsError,
    UnavailableError,
    printable,
)

Job = dict[str, Any]

OPEN_STATUSES = ("pending", "processing")
FINAL_STATUSES = ("completed", "failed")


class Refusal(NamedTuple):
    """What an answer other than a page means: the class of the error, and what to do."""

    error: type[ConvertlyError]
    remedy: str
    setting: str | None = None


_UNKNOWN = Refusal(ResponseError, REPORT)
_PLAN = Refusal(LimitError, "See the plan and usage of the account at {plan}")
_LATER = Refusal(UnavailableError, "Run again later: it continues where it stopped.")
_REFUSALS_BY_STATUS = {
    400: Refusal(SettingsError, "Try a lower page_size.", "page_size"),
    401: Refusal(
        SettingsError, "Check the API key (CONVERTLY_API_KEY) and auth_method.", "api_key"
    ),
    402: _PLAN,
    403: _PLAN,
    404: Refusal(SettingsError, "Correct base_url (CONVERTLY_BASE_URL).", "base_url"),
    408: _LATER,
    429: _PLAN,
}
_REFUSALS_BY_CLASS = {  # the first digit of the status
    3: Refusal(SettingsError, "Set base_url to the address it redirects to.", "base_url"),
    4: _UNKNOWN,
    5: _LATER,
}


class JobsPage(NamedTuple):
    """A page of the list: its jobs in the API's order, their offset, the length of the list.

    A job may be any JSON value. `date` is the time at which the server says that it answered.
    """

    jobs: list[Any]
    offset: int
    total: int
    date: datetime | None = None


class JobsClient:
    """Reads pages of an account's jobs. Safe to use from several threads.

    Failed requests are repeated as `api.http` describes. All threads together wait out a limit of
    requests per minute.
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
        self._rate_limiter = RateLimiter(requests_per_minute)
        check_address(self._url)
        session_attrs = {
            "auth": make_auth(api_key, auth_method),
            "trust_env": not is_loopback(self.host),  # no proxy leads back to this machine
        }
        self._http = RetryingClient(self._rate_limiter, max_connections, session_attrs)

    @property
    def host(self) -> str:
        """The host of the account, without port, path or credentials."""
        return urlsplit(self._url).hostname or ""

    @property
    def requests(self) -> int:
        """The number of requests that were sent, repeated ones too."""
        return self._rate_limiter.requests

    def __repr__(self) -> str:
        return f"JobsClient({self._url!r}, api_key='***')"

    def page(self, offset: int, limit: int, status: str | None = None) -> JobsPage:
        """Return up to `limit` jobs from `offset` on, in any status or in `status`.

        Raise one of `convertly_source.errors`. Source: "List jobs" of the API reference.
        """
        params = {"limit": limit, "offset": offset} | ({"status": status} if status else {})
        response = self._get(params)
        if response.headers.get("x-ratelimit-remaining-minute") == "0":
            self._rate_limiter.pause()
        body = parsed_body(response)
        if response.status_code != 200 or (body and body.get("error")):
            raise self._refusal(response, body or {})
        content_type = response.headers.get("Content-Type", "of no content type")
        page = parse_page(body, offset, self._sanitized(content_type))
        return page._replace(date=parse_date(response.headers.get("Date")))

    def _get(self, params: Mapping[str, Any]) -> Response:
        try:
            # A redirect would carry the key to another host.
            return self._http.get(self._url, params=params, allow_redirects=False)
        except ValueError as error:  # raised by requests and by urllib3
            raise unusable_address(self._url) from error
        except RequestException as error:
            raise UnavailableError(
                f"{self._url} could not be reached ({type(error).__name__}).",
                "Check the network and base_url, then run again: it continues where it stopped.",
                setting="base_url",
            ) from error

    def _refusal(self, response: Response, body: Mapping[str, Any]) -> ConvertlyError:
        status = response.status_code
        by_class = _REFUSALS_BY_CLASS.get(status // 100, _UNKNOWN)
        refusal = _REFUSALS_BY_STATUS.get(status, by_class)
        if status // 100 == 3:
            target = response.headers.get("Location", "an address that it does not name")
            message = f"{self._url} redirects to {target.partition('?')[0]}."
        else:
            reason = body.get("error") or body.get("detail") or response.reason or "no reason given"
            message = f"The API answered {status}: {reason}"
        plan = str(body.get("upgradeUrl") or "https://convertly.sh")
        remedy = refusal.remedy.format(plan=self._sanitized(plan))
        return refusal.error(self._sanitized(message), remedy, setting=refusal.setting)

    def _sanitized(self, text: str) -> str:
        """Return a text of the API without the key, printable and short."""
        return printable(text.replace(self._key, "***"))


def parse_page(body: Mapping[str, Any] | None, offset: int, content_type: str) -> JobsPage:
    """Return the page in a body; `content_type` describes a body that is no JSON object.

    Raise `ResponseError` if it is not the page at `offset`. The message quotes nothing of the
    body, which may hold anything.
    """
    page = f"The answer at offset {offset}"
    if body is None:
        raise ResponseError(f"{page} is not a JSON object but {content_type}.")
    jobs = body.get("jobs")
    if not isinstance(jobs, list):
        raise ResponseError(f"{page} has no list as `jobs`.")
    pagination = body.get("pagination")
    numbers = pagination if isinstance(pagination, dict) else {}
    if not all(_is_count(numbers.get(key)) for key in ("offset", "total")):
        raise ResponseError(f"{page} has no `pagination.offset` and `total` from 0 up.")
    if numbers["offset"] != offset:
        raise ResponseError(f"{page} claims to be at offset {numbers['offset']}.")
    return JobsPage(jobs, offset, numbers["total"])


def parse_date(header: str | None) -> datetime | None:
    """Return the time of a `Date` header in UTC, None if it is missing or is none."""
    try:
        date = parsedate_to_datetime(header or "")
        return date.replace(tzinfo=date.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < sys.maxsize
