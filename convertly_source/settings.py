"""The settings of the source: which values are allowed, and the client that they make."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, TypeVar

import dlt
from dlt.common.configuration import with_config
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.typing import TAnyDateTime, TSecretStrValue

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, JobsClient
from convertly_source.errors import SettingsError

BASE_URL = "https://convertly.sh"
LARGEST_PAGE = 100
T = TypeVar("T")
STATUSES = (*OPEN_STATUSES, *FINAL_STATUSES)
TABLE_FORMATS = {"delta": "deltalake", "iceberg": "pyiceberg"}  # and the libraries that they take
FIRST_START = datetime(1970, 1, 1, tzinfo=timezone.utc)  # of a window without a start


class Reading(NamedTuple):
    """How an account is read: settings of the source that its client does not have."""

    page_size: int = LARGEST_PAGE
    status: str | None = None
    trust_account: bool = False


def configured(function: Callable[..., T], given: Mapping[str, Any]) -> T:
    """Return what a function makes of the settings of the source: given ones, else dlt's."""
    names = given.keys() & inspect.signature(function).parameters.keys()
    resolved = with_config(function, sections=("sources", "convertly"))
    return resolved(**{name: given[name] for name in names})


def connect(
    api_key: TSecretStrValue | None = dlt.secrets.value,
    base_url: str = BASE_URL,
    auth_method: Literal["bearer", "x-api-key"] = "bearer",
    max_connections: int = 4,
    requests_per_minute: float | None = None,
) -> JobsClient:
    """Return the client that `convertly_source()` reads with, from the same settings.

    Raise `SettingsError` when there is no key, or a setting has a value that is not allowed.
    """
    check_number("max_connections", max_connections, 1)
    check_number("requests_per_minute", requests_per_minute or 0, 0)
    api_key = api_key or os.environ.get("CONVERTLY_API_KEY")
    if base_url == BASE_URL:
        base_url = os.environ.get("CONVERTLY_BASE_URL") or BASE_URL
    if not api_key:
        raise SettingsError(
            "There is no API key.",
            "Set CONVERTLY_API_KEY to a key from your Convertly dashboard.",
            setting="api_key",
        )
    return JobsClient(api_key, base_url, auth_method, max_connections, requests_per_minute)


def check_choice(name: str, value: str | None, choices: Iterable[str]) -> None:
    """Raise `SettingsError`, which lists the choices, if the value is neither one nor None."""
    if value not in (None, *choices):
        raise invalid(name, value, f"Use one of: {', '.join(choices)}.")


def check_number(name: str, value: float, least: int, most: int | None = None) -> None:
    """Raise `SettingsError`, which names the range, if the value is outside of it."""
    if value < least or (most is not None and value > most):
        raise invalid(name, value, f"Use {least} to {most}." if most else f"Use {least} or more.")


def parse_timestamp(name: str, value: TAnyDateTime | None) -> datetime | None:
    """Return the timestamp in UTC; raise `SettingsError`, which names the setting.

    A text that is a number is refused: it would be a year, or seconds since 1970.
    """
    example = "Use a date or a time such as 2026-05-01 or 2026-05-01T10:00:00Z."
    if isinstance(value, str) and _is_number(value):
        raise invalid(name, value, example)
    try:
        return None if value is None else ensure_datetime_in_tz(value, timezone.utc)
    except (ValueError, OverflowError, TypeError) as error:
        raise invalid(name, value, example) from error


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def parse_window(
    start_date: TAnyDateTime | None, end_date: TAnyDateTime | None
) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of the window; one that has only an end starts with the first job."""
    start = parse_timestamp("start_date", start_date)
    end = parse_timestamp("end_date", end_date)
    if end:
        start = start or FIRST_START
        if start >= end:
            raise invalid("end_date", end_date, f"Use a time after {start:%Y-%m-%d %H:%M:%S} UTC.")
    return start, end


def invalid(name: str, value: object, remedy: str) -> SettingsError:
    """Return the error for a value that is not allowed; `remedy` says which ones are."""
    return SettingsError(f"Invalid {name} {value!r}.", remedy, setting=name)
