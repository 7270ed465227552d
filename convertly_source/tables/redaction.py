"""Values without credentials: links without query strings, `data:` URLs without content."""

import re
from typing import Any

from dlt.common.json import PUA_CHARACTER_MAX, PUA_START

_DLT_MARKS = "".join(map(chr, range(PUA_START, PUA_START + PUA_CHARACTER_MAX + 1)))
_DATA_URL = re.compile(r"\s*(data:[^\s,;]*)[;,].*", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"\s*https?://", re.IGNORECASE)
_LINK_IN_TEXT = re.compile(r"(https?://[^?]*)\?\S+", re.IGNORECASE)


def without_credentials(value: Any, *, keep_links: bool = False) -> Any:
    """Return a copy of a JSON value in which no text or key holds credentials.

    A link loses its query string unless `keep_links`, a `data:` URL everything but its media type.
    """
    if isinstance(value, str):
        return redacted_text(value, keep_links=keep_links)
    if isinstance(value, dict):
        return {
            redacted_text(key, keep_links=keep_links): without_credentials(
                item, keep_links=keep_links
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_credentials(item, keep_links=keep_links) for item in value]
    return value


def redacted_text(value: str, *, keep_links: bool) -> str:
    """Return a text without credentials, and without leading characters that dlt reads as types."""
    if value.isascii() and ":" not in value:
        return value
    value = value.lstrip(_DLT_MARKS)  # dlt would parse what follows as a number or a date
    if data := _DATA_URL.fullmatch(value):
        return data[1]
    if keep_links or "?" not in value:
        return value
    if _LINK.match(value):
        return value.partition("?")[0]
    return _LINK_IN_TEXT.sub(r"\1", value)
