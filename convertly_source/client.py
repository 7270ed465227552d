"""One page of `GET /api/jobs`, or an error that says what to do."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import dlt
from dlt.common.json import json
from dlt.sources.helpers.requests import Client, RequestException, Response
from dlt.sources.helpers.rest_client.auth import APIKeyAuth, BearerTokenAuth

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
REPORT = "Run again; if it stays, report it to the maintainers of convertly-source."
_PLAN = (LimitError, "See the account's plan and usage at {plan}")
_REFUSALS: dict[int, tuple[type[ConvertlyError], str]] = {  # by status, or its first digit
    3: (SettingsError, "Set base_url to the address it redirects to."),
    400: (SettingsError, "A lower page_size may help."),
    401: (SettingsError, "Check the API key (CONVERTLY_API_KEY) and auth_method."),
    402: _PLAN,
    403: _PLAN,
    404: (SettingsError, "Check base_url (CONVERTLY_BASE_URL)."),
    429: _PLAN,
    5: (UnavailableError, "Run again later: it goes on where it stopped."),
}


class Answer(NamedTuple):
    """A page as the API gave it: its jobs, in the API's order, and where they stand."""

    jobs: list[Job]
    offset: int
    total: int


class JobsClient:
    """Reads pages of an account's jobs. Safe to use from several threads.

    Retries what may pass (connections, 5xx, the per-minute 429) for a little more than a minute,
    the window of the API's rate limit. dlt's own settings `[runtime] request_max_attempts`,
    `request_backoff_factor`, `request_max_retry_delay` and `request_timeout` are honoured.
    """

    def __init__(
        self, api_key: str, base_url: str, auth_method: str = "bearer", max_connections: int = 4
    ) -> None:
        self._url = base_url.rstrip("/") + "/api/jobs"
        self._key = api_key
        self._http = Client(
            request_timeout=_runtime("request_timeout", 60.0),
            max_connections=max_connections,
            raise_for_status=False,
            status_codes=range(500, 600),
            retry_condition=_is_rate_limited,
            request_max_attempts=_runtime("request_max_attempts", 7),  # 63 s of waiting
            request_backoff_factor=_runtime("request_backoff_factor", 1.0),
            request_max_retry_delay=_runtime("request_max_retry_delay", 300.0),
            session_attrs={"auth": _auth(api_key, auth_method)},
        )

    def page(self, offset: int, limit: int, status: str | None = None) -> Answer:
        """Ask for `limit` jobs from `offset`, of all states or in `status`.

        Raises one of `convertly_source.errors`. Source: "List jobs" of the API reference.
        """
        params = {"limit": limit, "offset": offset} | ({"status": status} if status else {})
        try:
            # A redirect would carry the key to another host.
            response = self._http.get(self._url, params=params, allow_redirects=False)
        except ValueError as error:  # of requests as of urllib3
            raise SettingsError(
                f"{self._url} is not a usable address.", "Correct base_url or CONVERTLY_BASE_URL."
            ) from error
        except RequestException as error:
            raise UnavailableError(
                f"{self._url} could not be reached ({type(error).__name__}).",
                "Check the network and base_url, then run again: it goes on where it stopped.",
            ) from error
        body = _parsed(response)
        if response.status_code != 200 or body.get("error"):
            raise self._refusal(response, body)
        return _answer(body, offset)

    def _refusal(self, response: Response, body: Mapping[str, Any]) -> ConvertlyError:
        code = response.status_code
        kind, remedy = _REFUSALS.get(code) or _REFUSALS.get(code // 100) or (ResponseError, REPORT)
        reason = body.get("error") or body.get("detail") or response.reason or "no reason given"
        said = f"The API answered {code}: {reason}"
        if 300 <= code < 400:
            to = response.headers.get("Location", "an address it does not name")
            said = f"{self._url} redirects to {to}."
        plan = str(body.get("upgradeUrl") or "https://convertly.sh")
        return kind(self._shown(said), remedy.format(plan=self._shown(plan)))

    def _shown(self, text: str) -> str:
        """Make what the API said fit to be shown: without the key, printable and short."""
        safe = text.replace(self._key, "***")[:300]
        return "".join(char if char.isprintable() else " " for char in safe)


def _auth(api_key: str, method: str) -> BearerTokenAuth | APIKeyAuth:
    if method not in AUTH_METHODS:
        raise SettingsError(f"auth_method is {method!r}.", f"Use one of {', '.join(AUTH_METHODS)}.")
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
    body = _parsed(response)
    said = " ".join(str(body.get(name)) for name in ("error", "code", "detail"))
    return not (month_is_used_up or "month" in said.lower())


def _parsed(response: Response) -> dict[str, Any]:
    """Parse the body; what is no JSON object becomes an error that shows it."""
    try:
        body = json.loadb(response.content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    kind = response.headers.get("Content-Type", "no content type")
    return {"error": f"not a JSON object but {kind}: {response.text.strip()}"}


def _answer(body: Mapping[str, Any], offset: int) -> Answer:
    jobs, pagination = body.get("jobs"), body.get("pagination")
    if not (isinstance(jobs, list) and all(isinstance(job, dict) for job in jobs)):
        raise ResponseError("The API's answer has no list of jobs.", REPORT)
    answered = pagination if isinstance(pagination, dict) else {}
    if not all(isinstance(answered.get(key), int) for key in ("offset", "total")):
        raise ResponseError("The API's answer has no pagination.offset and .total.", REPORT)
    if answered["offset"] != offset:
        raise ResponseError(
            f"The API was asked for offset {offset} and answered offset {answered['offset']}.",
            REPORT,
        )
    return Answer(jobs, offset, answered["total"])


def host(base_url: str) -> str:
    """Name the host that an account lives at, without port, path or credentials."""
    try:
        return urlsplit(base_url).hostname or base_url
    except ValueError:  # which the first request reports
        return base_url
