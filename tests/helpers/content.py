"""Jobs with the content that trips loads up, and the rows that they must become."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from convertly_source.api.client import Job
from convertly_source.demo import DemoAccount, DemoAPI, Reply

FEW = 60  # good jobs, before, between and after the odd ones


def nested(depth: int, *, is_list: bool) -> str:
    """Return JSON of lists or objects within each other."""
    return "[" * depth + "1" + "]" * depth if is_list else '{"a":' * depth + "1" + "}" * depth


def cut(depth: int, *, is_list: bool) -> Any:
    """Return the same as it is stored: 30 levels, and the rest as JSON text."""
    value: Any = nested(depth - 30, is_list=is_list)
    for _ in range(30):
        value = [value] if is_list else {"a": value}
    return value


class Case(NamedTuple):
    """Fields of a job as bytes of JSON, and columns that its rows must have."""

    fields: dict[str, bytes]
    job: dict[str, Any]
    results: Sequence[dict[str, Any]] = ()


MANY = range(1_700)
FILES = {f"f{number}.webp": {"originalSize": number} for number in MANY}
GROUPS = {f"g{number}": [{"originalSize": number}, {"width": 3}] for number in range(300)}
ODD = {f"k{number}": number for number in MANY}
DIGITS = "1" * 400
CASES = {
    "a pair of surrogates cut": Case(
        {"error_message": rb'"cut \ud83d"'}, {"error_message": "cut \ufffd"}
    ),
    "an invalid byte": Case({"error_message": b'"bad \xff"'}, {"error_message": "bad \ufffd"}),
    "a control character": Case({"error_message": b'"a\x01\tb"'}, {"error_message": "a\x01\tb"}),
    "other alphabets": Case(
        {"error_message": '"Größe 大小 حجم 😀"'.encode()}, {"error_message": "Größe 大小 حجم 😀"}
    ),
    "NUL": Case(
        {
            "error_message": rb'"a\u0000b"',
            "results": rb'{"files": [{"filename": "a\u0000"}], "k\u0000": ["\u0000"]}',
        },
        {"error_message": "a\ufffdb", "results_info": {"k\ufffd": ["\ufffd"]}},
        [{"filename": "a\ufffd"}],
    ),
    "no numbers": Case(
        {
            "results": b'[{"savedPercent": NaN}, {"savedPercent": 1e400}, {"originalSize": %s},'
            b' {"savedPercent": "NaN"}, {"originalSize": "0x1F"}, {"originalSize": "1_000"},'
            b' {"originalSize": "%s"}, {"savedPercent": "12.50"}]'
            % (DIGITS.encode(), "\u0661\u0662".encode())
        },
        {},
        [
            {"saved_percent": None, "saved_percent__v_text": "NaN"},
            {"saved_percent__v_text": "1e400"},
            {"original_size": None, "original_size__v_text": DIGITS},
            {"saved_percent__v_text": "NaN"},
            {"original_size__v_text": "0x1F"},
            {"original_size__v_text": "1_000"},
            {"original_size__v_text": "\u0661\u0662"},
            {"saved_percent": 12.5},
        ],
    ),
    "the other type": Case(
        {"progress": b"2.5", "error_message": b"5", "total_files": b"true", "job_type": b'["a"]'},
        {
            "progress": None,
            "progress__v_double": 2.5,
            "error_message": None,
            "error_message__v_bigint": 5,
            "total_files__v_bool": True,
            "job_type__v_json": ["a"],
        },
    ),
    "an unknown field": Case(
        {"is_new": b"true", "more": b"12", "size": b'{"width": 5}', "tags": b'["a", {"b": [1]}]'},
        {"is_new": True, "more": 12, "size": {"width": 5}, "tags": ["a", {"b": [1]}]},
    ),
    "an unknown field of another type": Case(
        {"is_new": b'"no"', "more": b"9007199254740993", "size": b"7", "tags": b'"a"'},
        {
            "is_new": None,
            "is_new__v_text": "no",
            "more": None,
            "more__v_bigint": 9007199254740993,
            "size__v_bigint": 7,
            "tags__v_text": "a",
        },
    ),
    "extremes": Case(
        {
            "error_message": b'"%s"' % (b"long " * 20_000),
            "completed_at": b'"0001-01-01T00:00:00Z"',
            "largest": b"1.7976931348623157e308",
            "smallest": b"5e-324",
            "lowest": b"-9223372036854775808",
            "highest": b"18446744073709551615",
            "results": b'[{"originalSize": 9223372036854775807},'
            b' {"originalSize": -9223372036854775808}]',
        },
        {
            "error_message": None,
            "extra_fields": {"error_message": "long " * 20_000},
            "completed_at": datetime(1, 1, 1, tzinfo=timezone.utc),
            "largest": 1.7976931348623157e308,
            "smallest": 5e-324,
            "lowest": -(2**63),
            "highest": str(2**64 - 1),
        },
        [{"original_size": 2**63 - 1}, {"original_size": -(2**63)}],
    ),
    "keys for one column": Case(
        {"fooBar": b"1", "foo_bar": b"2", "大小": b"3", "حجم": b'"x"'},
        {"foo_bar": 1, "x": 3, "extra_fields": {"foo_bar": 2, "حجم": "x"}},
    ),
    "deep values": Case(
        {
            "deep_list": nested(60, is_list=True).encode(),
            "deep_object": nested(150, is_list=False).encode(),
            "results": b"[%s]" % nested(60, is_list=True).encode(),
        },
        {"deep_list": cut(60, is_list=True), "deep_object": cut(150, is_list=False)},
        [{"value__v_json": cut(60, is_list=True)}],
    ),
    "very deep values": Case({"deeper": nested(3000, is_list=True).encode()}, {}),
    "a map of files": Case(
        {"results": json.dumps({"files": FILES, "storage": {"saved": True}}).encode()},
        {"results_info": {"storage": {"saved": True}}},
        [{"filename": name, "original_size": n} for n, name in enumerate(FILES)],
    ),
    "a map of lists": Case(
        {"results": json.dumps({"g": [{"id": "s"}, {"filename": "own"}]}).encode()},
        {},
        [{"filename": "g", "id": "s"}, {"filename": "own", "extra_fields": {"filename": "g"}}],
    ),
    "lists by name": Case({"results": json.dumps(GROUPS).encode()}, {}, [{}]),
    "many keys": Case(
        {"results": json.dumps(ODD).encode()} | {f"field{n}": b"%d" % n for n in range(150)},
        {"field0": 0},
        [{"extra_fields": ODD}],
    ),
}
READ_AS_A_DATE = {"id": "\uf0262026-05-01"}  # by dlt
NO_OBJECTS: list[Any] = [None, "text", 5, True, ["a"]]
ENTRIES = [*NO_OBJECTS, {"id": "no time \0", "note": "\0"}, READ_AS_A_DATE]
REASONS = [
    "no usable created_at",
    "no usable id and no usable created_at",
    *["not an object"] * len(NO_OBJECTS),
]


def is_same(value: Any, stored: Any) -> bool:
    """Whether a JSON value is stored exactly: as itself, or a text as its number or time."""
    with suppress(ValueError, InvalidOperation):
        if isinstance(stored, datetime):
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() in (
                stored.timestamp(),
                stored.replace(tzinfo=timezone.utc).timestamp(),
            )
        if {type(value), type(stored)} in ({str, int}, {str, float}):
            return Decimal(value) == Decimal(stored)
    return bool(_canonical(value) == _canonical(stored))


def _canonical(value: Any) -> Any:
    """Return a JSON value in which 1 and 1.0 are equal, but 1 and true are not."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return isinstance(value, bool), value


def is_found(key: str, value: Any, name: str, row: dict[str, Any]) -> bool:
    """Whether the value of a key is in a row: in its column, a variant of it, or an extra field."""
    columns = [name, *(column for column in row if column.startswith(f"{name}__v_"))]
    places = [row[column] for column in columns if column in row]
    extra = row.get("extra_fields") or {}
    return any(
        is_same(value, place) for place in [*places, *([extra[key]] if key in extra else [])]
    )


@contextmanager
def dlt_log() -> Iterator[list[str]]:
    """Collect what dlt's logger prints from WARNING on."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("dlt")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


class ContentAPI(DemoAPI):
    """The API of an account that has every case among its jobs, and odd entries in its list.

    Its bodies have a byte order mark before the JSON and a text after it.
    """

    def __init__(self) -> None:
        account = DemoAccount(FEW)
        super().__init__(account)
        self.fault = self.raw_reply
        self.case_ids: dict[str, str] = {}
        self._raw: dict[str, bytes] = {}
        for name, case in CASES.items():
            job = account.create(status="completed")
            job |= {field: self._mark(value) for field, value in case.fields.items()}
            self.case_ids[name] = job["id"]
            account.finish(account.create())
        self._entries = {account.create()["id"]: entry for entry in ENTRIES}

    @property
    def good_jobs(self) -> list[Job]:
        """The jobs that have nothing odd."""
        odd = {*self.case_ids.values(), *self._entries}
        return [job for job in self.account.jobs if job["id"] not in odd]

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Make one page of the list, with the odd entries."""
        page = super().page(limit, offset, status)
        page["jobs"] = [self._entries.get(job["id"], job) for job in page["jobs"]]
        return page

    def raw_reply(self, query: dict[str, str]) -> Reply:
        """Answer with bytes that no JSON library writes."""
        status, page = self.answer(query, self.key)
        body = json.dumps(page).encode()
        for mark, value in self._raw.items():
            body = body.replace(json.dumps(mark).encode(), value)
        return Reply(status, b"\xef\xbb\xbf" + body + b"\n<!-- cached -->")

    def _mark(self, value: bytes) -> str:
        mark = f"raw {len(self._raw)}!"
        self._raw[mark] = value
        return mark
