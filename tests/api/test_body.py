"""Bodies: any bytes give values that every database stores, or none; good jobs are not changed."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from helpers.content import nested
from hypothesis import given
from hypothesis import strategies as st

from convertly_source.api.body import MAX_DEPTH, parse_body

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
DIGITS = st.text("0123456789", max_size=25)
NUMBERS = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole.lstrip('0') or '0'}{part}{exponent}",
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.filter(bool).map(".{}".format),
    st.just("") | st.builds("{}{}".format, st.sampled_from("eE"), st.integers(-400, 400)),
)
ESCAPES = ["\\u0000", "\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\\\ud83d", "\\\\u0000", "\\n"]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud83d \\u0000"', r"\ud83d \u0000"),
        (rb'{"k\u0000": "\u0000"}', {"k\ufffd": "\ufffd"}),
        (b'"a\x00\x01\n"', "a\ufffd\x01\n"),
        (b'"bad \xff\xed\xa0\x80"', "bad \ufffd\ufffd\ufffd\ufffd"),
        (b'\xef\xbb\xbf {"a": 1}', {"a": 1}),
        (b'\n{"a": 1}\n<!-- cached -->', {"a": 1}),
        (b'{"a": 1}{"a": 2}', {"a": 1}),
        (b"[NaN, Infinity, -Infinity, 1e400]", ["NaN", "Infinity", "-Infinity", "1e400"]),
        (b"[18446744073709551615, 18446744073709551616]", [2**64 - 1, "18446744073709551616"]),
        (b"[%s]" % (b"1" * 400), ["1" * 400]),
        (b"[1" + b"0" * 5000 + b"]", ["1" + "0" * 5000]),
        (b"[0.1, 92.60000000000001]", [0.1, 92.60000000000001]),
        (b"[33.3333333333333333, 1.0000000000000000]", ["33.3333333333333333", 1.0]),
        (b"[1e-400, 0e-400, 1e-99999999999999999999]", ["1e-400", 0.0, "1e-99999999999999999999"]),
        (b'{"a": 1e-4000 }', {"a": "1e-4000"}),
        (b"[9007199254740993, -0]", [9007199254740993, 0]),
    ],
)  # fmt: skip
def test_a_body_is_read_leniently(body: bytes, value: Any) -> None:
    """What no database stores is replaced or kept as text; what else is odd is accepted."""
    parsed = parse_body(body)
    assert (parsed, repr(parsed)) == (value, repr(value))


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize("depth", [1, 199, 200, 201, 254, 255, 256, 1000, 1100, 3000, 100_000])
def test_deep_values_are_cut_to_text(depth: int, *, is_list: bool) -> None:
    """A value nested too deep for recursive code is the text of its JSON from some level on."""
    value = parse_body(b'{"deep": %s, "next": "]}"}' % nested(depth, is_list=is_list).encode())
    assert value["next"] == "]}"
    levels, value = 0, value["deep"]
    while isinstance(value, (list, dict)):
        levels, value = levels + 1, value[0] if isinstance(value, list) else value["a"]
    assert levels == depth if depth < MAX_DEPTH else MAX_DEPTH - 1 <= levels <= 254
    assert value == (1 if levels == depth else nested(depth - levels, is_list=is_list))


@pytest.mark.parametrize(
    "text", ["", " ", "{", '{"a": [1, 2', "<html>", "nil", '{"a" 1}', "\ufeff"]
)
def test_what_is_no_json_is_an_error(text: str) -> None:
    """A body without JSON, or with only its beginning, is a ValueError."""
    with pytest.raises(ValueError, match=r"line \d"):
        parse_body(text.encode())


@given(st.dictionaries(st.text(), JSON, min_size=1), st.data())
def test_a_body_cut_short_is_an_error(page: dict[str, Any], data: st.DataObject) -> None:
    """However much of an object is missing, it is not taken for a whole one."""
    body = json.dumps(page, ensure_ascii=data.draw(st.booleans())).encode()
    with pytest.raises(ValueError, match=r"line \d"):
        parse_body(body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize("depth", [150, 250, 3000])
def test_a_deep_body_cut_short_is_an_error(depth: int) -> None:
    """A body that ends inside of a deep value is not taken for a whole one either."""
    with pytest.raises(ValueError, match=r"line \d"):
        parse_body(b"[" * depth + b'{"a": "')


@given(JSON)
def test_ordinary_json_is_not_changed(value: Any) -> None:
    """JSON without NUL is what it says, with whatever escapes it is written."""
    text = json.dumps(value).replace("\\u0000", "\\ufffd")
    assert parse_body(text.encode()) == json.loads(text)
    assert parse_body(b"\xef\xbb\xbf" + text.encode() + b" x") == json.loads(text)


@given(NUMBERS)
def test_numbers_are_exact_or_text(text: str) -> None:
    """Whatever digits a number has, it is the same number, or its text."""
    [value] = parse_body(f"[{text}]".encode())
    assert value == text if isinstance(value, str) else Decimal(repr(value)) == Decimal(text)
    is_short = len(text.lstrip("-").partition("e")[0]) <= 15 and "e" not in text.lower()
    assert not (is_short and isinstance(value, str))


@given(st.lists(st.binary(max_size=5) | st.sampled_from([text.encode() for text in ESCAPES])))
def test_any_bytes_in_a_text_leave_its_neighbours(parts: list[bytes]) -> None:
    """Bytes between the quotes of one text change no other value, and can be stored."""
    inner = b"".join(parts).replace(b'"', b"")
    inner += b"\\" * ((len(inner) - len(inner.rstrip(b"\\"))) % 2)
    body = b'{"before": [1, "\xc3\xa9"], "odd": "' + inner + b'", "after": {"a": null}}'
    try:
        value = parse_body(body)
    except ValueError:
        assert b"\\" in inner  # an escape that is none
        return
    assert value | {"odd": ""} == {"before": [1, "é"], "odd": "", "after": {"a": None}}
    assert_storable(value)


@given(st.binary() | st.text('[]{}",:\\ud08aeE+-.0123456789 NaIfinty', max_size=40).map(str.encode))
def test_any_bytes_give_storable_values_or_an_error(body: bytes) -> None:
    """There is no body that fails in another way, or gives a value that a database refuses."""
    try:
        assert_storable(parse_body(body))
    except ValueError as error:
        assert "line" in str(error)  # noqa: PT017 - most bodies raise it


def assert_storable(value: Any) -> None:
    """Check all texts and numbers in a value."""
    for scalar in scalars(value):
        if isinstance(scalar, str):
            scalar.encode()
            assert "\0" not in scalar
        if isinstance(scalar, float):
            assert math.isfinite(scalar)


def scalars(value: Any) -> Iterator[Any]:
    """Yield all scalars in a value, and the keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item)
    else:
        yield value
