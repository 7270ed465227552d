"""How the API key is sent, and to which addresses."""

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from dlt.sources.helpers.rest_client.auth import APIKeyAuth, BearerTokenAuth

from convertly_source.errors import SettingsError

AUTH_METHODS = ("bearer", "x-api-key")


def make_auth(api_key: str, method: str) -> BearerTokenAuth | APIKeyAuth:
    """Return what puts the key into the headers of each request.

    Raise `SettingsError` if there is no such method, or no header can carry the key.
    """
    if method not in AUTH_METHODS:
        raise SettingsError(
            f"Invalid auth_method {method!r}.",
            f"Use one of: {', '.join(AUTH_METHODS)}.",
            setting="auth_method",
        )
    if not re.fullmatch("[!-~]+", api_key):
        raise SettingsError(
            "The API key is empty, or has spaces or characters outside ASCII.",
            "Copy the key again (CONVERTLY_API_KEY), without spaces or line breaks.",
            setting="api_key",
        )
    if method == "bearer":
        return BearerTokenAuth(token=api_key)
    return APIKeyAuth(name="x-api-key", api_key=api_key)


def check_address(url: str) -> None:
    """Raise `SettingsError` unless the key may be sent to that address."""
    parts = _split(url)
    if parts is None:
        raise unusable_address(url)
    if parts.username or parts.password:
        raise SettingsError(
            "base_url contains a user name or a password.",
            "Remove it from base_url (CONVERTLY_BASE_URL).",
            setting="base_url",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise SettingsError(
            f"{url} is not encrypted: anyone on the way could read the API key.",
            "Use an https:// address. Only this machine (127.0.0.1) may be http://.",
            setting="base_url",
        )


def unusable_address(url: str) -> SettingsError:
    """Return the error for an address to which no request can be sent."""
    return SettingsError(
        f"{url} is not a usable address.",
        "Correct base_url (CONVERTLY_BASE_URL), for example https://convertly.sh.",
        setting="base_url",
    )


def is_loopback(host: str) -> bool:
    """Whether that host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> SplitResult | None:
    """Return the parts of an http or https address, None for anything else."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_usable else None
