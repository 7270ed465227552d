"""How each value of a job is stored: its type and its form, without credentials."""

import re
from typing import Any

from dlt.common.data_types.typing import TDataType
from dlt.common.json import json

from convertly_source.api.body import exact_number
from convertly_source.reading.job import parse_datetime
from convertly_source.tables.redaction import redacted_text

MAX_TEXT = 65_535  # bytes; MariaDB's TEXT takes no more
MAX_DEPTH = 30  # levels; MariaDB takes no JSON with more than 31
BIGINT = 2**63  # the first integer that is too large
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def storable(
    value: Any,
    data_type: TDataType | None,
    parse_text: bool = False,  # noqa: FBT001, FBT002 - called for each value
    keep_links: bool = False,  # noqa: FBT001, FBT002
) -> tuple[TDataType | None, Any]:
    """Return the type that a value is stored with, and the value as it is stored.

    The type is `data_type`, that of the column, if the value fits it without a change; otherwise
    it is the value's own. With `parse_text` a text fits a number or timestamp that it spells out.
    A value for a column that has no type yet chooses one. A text that is too long for some
    databases has no type: only JSON holds it.
    """
    kind = type(value)
    if kind is str:
        text = redacted_text(value, keep_links)
        if len(text) > MAX_TEXT // 4 and len(text.encode()) > MAX_TEXT:
            return None, text
        return _parsed(text, data_type) if parse_text and data_type != "text" else ("text", text)
    if kind is int or kind is float:
        return _number(value, data_type)
    if kind is bool:
        return "bool", value
    return "json", storable_json(value, keep_links)


def storable_json(
    value: Any,
    keep_links: bool = False,  # noqa: FBT001, FBT002 - called for each value
    depth: int = 0,
) -> Any:
    """Return a copy of a JSON value without credentials, with what is too deep as JSON text."""
    if isinstance(value, str):
        return redacted_text(value, keep_links)
    if not isinstance(value, (dict, list)):
        return value
    if depth == MAX_DEPTH:
        return json.dumps(storable_json(value, keep_links, depth + 1))
    if isinstance(value, list):
        return [storable_json(item, keep_links, depth + 1) for item in value]
    stored: dict[str, Any] = {}
    for key, item in value.items():
        name = free_key(redacted_text(key, keep_links), stored)
        stored[name] = storable_json(item, keep_links, depth + 1)
    return stored


def free_key(key: str, taken: dict[str, Any]) -> str:
    """Return the key, with a number if it is taken: without credentials, keys may be the same."""
    number = 1
    name = key
    while name in taken:
        number += 1
        name = f"{key} ({number})"
    return name


def _number(value: float, data_type: TDataType | None) -> tuple[TDataType, Any]:
    """Choose a type that holds the number exactly.

    JSON has one kind of number: an undocumented 12 is a double, so that 12.5 may follow.
    """
    if data_type == "bigint" and type(value) is int and -BIGINT <= value < BIGINT:
        return "bigint", value
    if data_type in ("double", None) and float(value) == value:
        return "double", float(value)
    is_bigint = -BIGINT <= value < BIGINT and int(value) == value
    if is_bigint and (data_type == "bigint" or isinstance(value, int)):
        return "bigint", int(value)
    return ("double", float(value)) if float(value) == value else ("text", str(value))


def _parsed(text: str, data_type: TDataType | None) -> tuple[TDataType, Any]:
    if data_type == "timestamp" and _DATE_TIME.fullmatch(text):
        timestamp = parse_datetime(text)
        return ("text", text) if timestamp is None else ("timestamp", timestamp)
    if data_type in ("bigint", "double") and _NUMBER.fullmatch(text):
        number = exact_number(text)
        if not isinstance(number, str):
            found, stored = _number(number, data_type)
            if found == data_type:
                return found, stored
    return "text", text
