"""The JSON of a body, parsed strictly, and once more leniently where that fails or loses something.

`parse_body` promises values that every database can store: no NUL, no lone surrogate, no number
that is not exact, nothing that is nested without end.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

MAX_DEPTH = 200  # levels; whatever handles the value later may be recursive
REPLACEMENT = "\ufffd"

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_INTEGERS = range(-(2**63), 2**64)  # those of orjson
_DIGITS = bytes.maketrans(b"123456789.E\t\n\r ]}", b"0000000000e,,,,,,")
_MANY_DIGITS = b"0" * 16  # a float holds any 15
_TINY = re.compile(rb"e-0{3,},")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair of surrogates
    r"|(?P<unusable>u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def parse_body(body: bytes) -> Any:
    """Return the JSON value in a body.

    Accepted are also: bytes that are not UTF-8, a byte order mark, raw control characters, and
    anything after the JSON. NUL and lone surrogates become U+FFFD. A number that neither a float
    nor 64 bits hold exactly, NaN, and what is nested deeper than 200 levels stay as their text.

    Raise `ValueError` if there is no JSON, or only its beginning.
    """
    try:
        value = orjson.loads(body)
    except ValueError:
        return _parse_leniently(body)
    if b"\\u0000" in body or _may_be_inexact(body) or _is_deep(value):
        return _parse_leniently(body)
    return value


def exact_number(text: str) -> int | float | str:
    """Return the number that a JSON number stands for, the text itself if that is not exact."""
    if _INTEGER.fullmatch(text):
        integer = int(text)
        return integer if integer in _INTEGERS else text
    number = float(text)
    try:
        return number if Decimal(repr(number)) == Decimal(text) else text
    except InvalidOperation:  # an exponent of more digits than Decimal takes
        return text


def _may_be_inexact(body: bytes) -> bool:
    """Whether a number may have too many digits for a float, or be too close to zero."""
    digits = body.translate(_DIGITS)
    return _MANY_DIGITS in digits or bool(_TINY.search(digits))


def _is_deep(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:  # more than 254 levels
        return True
    return False


def _parse_leniently(body: bytes) -> Any:
    text = body.decode("utf-8-sig", errors="replace").replace("\0", REPLACEMENT)
    text = _ESCAPE.sub(lambda escape: REPLACEMENT if escape["unusable"] else escape[0], text)
    try:
        value = _decode(text)
    except RecursionError:
        return _decode(_without_depth(text))
    return _decode(_without_depth(text)) if _is_deep(value) else value


def _decode(text: str) -> Any:
    decoder = json.JSONDecoder(
        strict=False, parse_int=exact_number, parse_float=exact_number, parse_constant=str
    )
    return decoder.raw_decode(text.lstrip(" \t\r\n"))[0]


def _without_depth(text: str) -> str:
    """Return a JSON text in which what is deeper than `MAX_DEPTH` is the string of its text."""
    parts: list[str] = []
    depth = end = start = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                start = match.start()
                parts.append(text[end:start])
        elif match[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                end = match.end()
                parts.append(json.dumps(text[start:end]))
    if depth <= MAX_DEPTH:  # else the text ends too early, and so does what is returned
        parts.append(text[end:])
    return "".join(parts)
