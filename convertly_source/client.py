"""One page of `GET /api/jobs`, or an error that says what to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import dlt
from dlt.common.json import json
from dlt.sources.helpers.requests import Client, RequestException, Response
from dlt.sources.helpers.rest_client.auth import APIKeyAuth, BearerTokenAuth
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

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
        self._auth = _auth(api_key, auth_method)
        self._http = Client(
            request_timeout=_runtime("request_timeout", 60.0),
            max_connections=max_connections,
            raise_for_status=False,
            status_codes=range(500, 600),
            retry_condition=_is_rate_limited,
            request_max_attempts=_runtime("request_max_attempts", 7),  # 63 s of waiting
            request_backoff_factor=_runtime("request_backoff_factor", 1.0),
            request_max_retry_delay=_runtime("request_max_retry_delay", 300.0),
            session_attrs={"auth": self._auth},
        )

    def page(self, offset: int, limit: int, status: str | None = None) -> Answer:
        """Ask for `limit` jobs from `offset`, of all states or in `status`.

        Raises one of `convertly_source.errors`. Source: "List jobs" of the API reference.
        """
        params = {"limit": limit, "offset": offset} | ({"status": status} if status else {})
        try:
            # A redirect would carry the key to another host.
            response = self._http.get(self._url, params=params, allow_redirects=False)
        except (InvalidSchema, InvalidURL, MissingSchema) as error:
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
        reason = body.get("error") or body.get("detail") or response.reason or "no reason given"
        secret = self._auth.token if isinstance(self._auth, BearerTokenAuth) else self._auth.api_key
        said = f"The API answered {code}: {reason}".replace(str(secret), "***")[:300]
        if 300 <= code < 400:
            to = response.headers.get("Location", "an address it does not name")
            return SettingsError(
                f"{self._url} redirects to {to}.", "Set base_url to the address it redirects to."
            )
        if code == 401:
            return SettingsError(said, "Check the API key (CONVERTLY_API_KEY) and auth_method.")
        if code == 400:
            return SettingsError(said, "A lower page_size may help.")
        if code == 404:
            return SettingsError(said, "Check base_url (CONVERTLY_BASE_URL).")
        if code in (402, 403, 429):
            see = body.get("upgradeUrl") or "https://convertly.sh"
            return LimitError(said, f"See the account's plan and usage at {see}")
        if code >= 500:
            return UnavailableError(said, "Run again later: it goes on where it stopped.")
        return ResponseError(said, REPORT)


def _auth(api_key: str, method: str) -> BearerTokenAuth | APIKeyAuth:
    if method not in AUTH_METHODS:
        raise SettingsError(f"auth_method is {method!r}.", f"Use one of {', '.join(AUTH_METHODS)}.")
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise SettingsError(
            "The API key has characters that a key can't have.",
            "Copy the key again (CONVERTLY_API_KEY), without spaces or line breaks.",
        )
    if method == "bearer":
        return BearerTokenAuth(token=api_key)
    return APIKeyAuth(name="x-api-key", api_key=api_key)


def _runtime(name: str, default: T) -> T:
    value = dlt.config.get(f"runtime.{name}", type(default))
    return default if value is None else value


def _is_rate_limited(response: Response | None, error: BaseException | None) -> bool:
    """Whether to wait: the monthly cap is a 429 as well, and waiting for it is useless."""
    if response is None or response.status_code != 429:
        return False
    month_is_used_up = response.headers.get("x-ratelimit-remaining-month") == "0"
    return not (month_is_used_up or "month" in str(_parsed(response).get("error", "")).lower())


def _parsed(response: Response) -> dict[str, Any]:
    """Parse the body; what is no JSON object becomes an error that shows its beginning."""
    try:
        body = json.loadb(response.content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    kind = response.headers.get("Content-Type", "no content type")
    return {"error": f"not a JSON object but {kind}: {response.text.strip()[:80]!r}"}


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
    return urlsplit(base_url).hostname or base_url
