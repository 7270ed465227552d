"""Texts without credentials: links without query strings, `data:` URLs without content."""

import re

from convertly_source.reading.job import DLT_MARKS

_MARKS = "".join(map(chr, DLT_MARKS))
_DATA_URL = re.compile(r"\s*(data:[^\s,;]*)[;,].*", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"\s*https?://", re.IGNORECASE)
_LINK_IN_TEXT = re.compile(r"(https?://[^?]*)\?\S+", re.IGNORECASE)


def redacted_text(value: str, keep_links: bool) -> str:  # noqa: FBT001 - called for each text
    """Return a text without credentials, and without leading characters that dlt reads as types."""
    if value.isascii() and ":" not in value:
        return value
    value = value.lstrip(_MARKS)  # dlt would parse what follows as a number or a date
    if data := _DATA_URL.fullmatch(value):
        return data[1]
    if keep_links or "?" not in value:
        return value
    if _LINK.match(value):
        return value.partition("?")[0]
    return _LINK_IN_TEXT.sub(r"\1", value)
