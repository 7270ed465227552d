"""The gate: each value is stored exactly, somewhere, in a table whose columns stay few."""

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention
from helpers.content import is_found
from hypothesis import given
from hypothesis import strategies as st

from convertly_source.reading.job import ListedJob
from convertly_source.tables.columns import MAX_KEYS
from convertly_source.tables.records import RecordMapper
from convertly_source.tables.schema import JOB_COLUMNS, RESULT_COLUMNS
from convertly_source.tables.values import storable, storable_json

JOB = {"id": "a", "status": "completed", "created_at": "2026-05-09T10:00:00.000Z"}
naming = NamingConvention(50).normalize_identifier
TEN = datetime(2026, 5, 9, 10, tzinfo=timezone.utc)


def record(mapper: RecordMapper | None = None, **fields: Any) -> dict[str, Any]:
    """Return the row of a job with these fields."""
    mapper = mapper or RecordMapper(naming)
    return mapper.job_record(ListedJob.parse(JOB | fields))


@pytest.mark.parametrize(
    ("value", "data_type", "stored_type", "stored"),
    [
        *(("a", "text", "text", "a"), (5, "text", "bigint", 5), (2.5, "text", "double", 2.5)),
        *((True, "text", "bool", True), ([1], "text", "json", [1]), ({}, "text", "json", {})),
        *((5, "bigint", "bigint", 5), (5.0, "bigint", "bigint", 5), (5.5, "bigint", "double", 5.5)),
        *((True, "bigint", "bool", True), ("5", "bigint", "bigint", 5)),
        ("5.5", "bigint", "text", "5.5"),
        *(("1e3", "bigint", "bigint", 1000), ("-0", "bigint", "bigint", 0)),
        (2**63 - 1, "bigint", "bigint", 2**63 - 1),
        (-(2**63), "bigint", "bigint", -(2**63)),
        (2**63, "bigint", "double", 2.0**63),
        (2**64 - 1, "bigint", "text", "18446744073709551615"),
        (-1e300, "bigint", "double", -1e300),
        *((5, "double", "double", 5.0), (5.5, "double", "double", 5.5)),
        ("5.5", "double", "double", 5.5),
        (2**53 + 1, "double", "bigint", 2**53 + 1),
        (2**64 - 1, "double", "text", "18446744073709551615"),
        ("9007199254740993", "double", "text", "9007199254740993"),
        ("0.1234567890123456789", "double", "text", "0.1234567890123456789"),
        *((False, "double", "bool", False), ({"a": 1}, "double", "json", {"a": 1})),
        *(
            (text, "bigint", "text", text)
            for text in ("0x1F", "1_000", "\u0661", " 5", "5 ", "+5", "05", ".5", "5.", "", "NaN")
        ),
        *((text, "double", "text", text) for text in ("inf", "-Infinity", "1e400", "1e-400")),
        ("2026-05-09T10:00:00Z", "timestamp", "timestamp", TEN),
        ("2026-05-09 12:00+0200", "timestamp", "timestamp", TEN),
        ("2026-05-09T10:00:00.000000000Z", "timestamp", "timestamp", TEN),
        *(
            (text, "timestamp", "text", text)
            for text in ("2026-05-09T10:00:00.1234567Z", "2026", "soon", "10:00", "2026-13-01")
        ),
        ("9999-12-31T23:59:59-12:00", "timestamp", "text", "9999-12-31T23:59:59-12:00"),
        (7, "timestamp", "bigint", 7),
        *((5, None, "double", 5.0), ("5", None, "text", "5")),
        (2**53 + 1, None, "bigint", 2**53 + 1),
        *((True, None, "bool", True), ([1, 2.5], None, "json", [1, 2.5])),
        *(("a", "json", "text", "a"), (5, "json", "bigint", 5)),
        ({"a": 1}, "json", "json", {"a": 1}),
    ],
)  # fmt: skip
def test_a_value_is_stored_exactly(
    value: Any, data_type: Any, stored_type: str, stored: Any
) -> None:
    """A value gets its column's type if that changes nothing, else it keeps its own."""
    found = storable(value, data_type, parse_text=data_type is not None)
    assert (*found, type(found[1])) == (stored_type, stored, type(stored))


@pytest.mark.parametrize("text", ["5", "1.10", "2026-05-09T10:00:00Z", "true"])
def test_a_text_in_an_undocumented_column_stays_text(text: str) -> None:
    """Only a documented column tells that a text stands for a number or a time."""
    mapper = RecordMapper(naming)
    kinds: list[Any] = [1, False, {}]
    for first in kinds:
        mapper.restore_columns({})
        record(mapper, more=first)
        assert record(mapper, more=text)["more__v_text"] == text


def test_unknown_fields_become_columns_by_themselves() -> None:
    """A scalar is a column of its type, and an object or a list is one JSON column."""
    fields: dict[str, Any] = {
        "width": 12,
        "is_new": True,
        "note": "n",
        "size": {"w": [1, None]},
        "tags": [],
    }
    row = record(**fields, nothing=None)
    assert {name: row[name] for name in fields} == fields
    assert "nothing" not in row


def test_what_is_deeper_than_30_levels_is_json_text() -> None:
    """The 31st level of lists and objects, and what is below, is the text of its JSON."""
    value: Any = {"url": "https://h/a?token=s3cr3t"}
    for _ in range(100):
        value = [value]
    stored = storable_json(value)
    for _ in range(30):
        [stored] = stored
    assert json.loads(stored) == json.loads("[" * 70 + '{"url": "https://h/a"}' + "]" * 70)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("a" * 65_535, True), ("a" * 65_536, False), ("é" * 32_768, False), ("😀" * 16_383, True)],
)
def test_a_text_above_64_kb_is_an_extra_field(text: str, *, fits: bool) -> None:
    """MariaDB takes no more in a text column; JSON holds it everywhere."""
    for key in ("error_message", "note"):
        row = record(None, **{key: text})
        assert (row if fits else row["extra_fields"])[key] == text
        assert fits or key not in row


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        ({"a": {"filename": "b"}}, [{"filename": "b", "extra_fields": {"filename": "a"}}]),
        ({"a": {"filename": None, "id": "x"}}, [{"filename": "a", "id": "x"}]),
        (
            {"a": {"originalSize": 1}, "b": [{"id": "x"}, {"final_size": 2}]},
            [
                {"filename": "a", "original_size": 1},
                {"filename": "b", "id": "x"},
                {"filename": "b", "final_size": 2},
            ],
        ),
        ({"a": {"width": 1}, "b": {"id": "x"}}, [{"a": {"width": 1}, "b": {"id": "x"}}]),
        ({"a": {"id": "x"}, "b": []}, [{"a": {"id": "x"}, "b": []}]),
        ({"a": {"value": 1, "job_id": "a"}}, [{"a": {"value": 1, "job_id": "a"}}]),
    ],
)
@pytest.mark.parametrize("key", [None, "files", "file"])
def test_an_object_of_files_gives_a_row_for_each(
    files: Any, rows: list[dict[str, Any]], key: str | None
) -> None:
    """Files keyed by name are rows; any other object, even one that looks alike, is one row."""
    found = record(results={key: files} if key else files)["results"]
    assert found == [row | {"job_id": "a"} for row in rows]


def undocumented(mapper: RecordMapper) -> dict[str, int]:
    """Count the columns that are not documented, by table."""
    return {
        table: len({column["name"] for column in columns} - {"extra_fields"})
        for table, columns in mapper.new_columns().items()
    }


def test_a_table_gets_100_undocumented_columns_at_most() -> None:
    """Beyond 100, keys and values of another type are extra fields; known columns still fill."""
    mapper = RecordMapper(naming)
    for number in range(300):
        row = record(mapper, **{f"k{number}": number}, results=[{f"r{number}": [number]}])
        column = f"k{number}" if number < 100 else "extra_fields"
        assert row[column] == (number if number < 100 else {f"k{number}": number})
    assert undocumented(mapper) == {"jobs": 100, "jobs__results": 100}
    row = record(mapper, k7="text", k8=8, progress=2.5)
    assert row["extra_fields"] == {"k7": "text", "progress": 2.5}
    assert row["k8"] == 8.0


def test_columns_of_earlier_runs_are_counted() -> None:
    """The limit holds over runs, since the columns that a table has are part of it."""
    mapper = RecordMapper(naming)
    stored: dict[str, Any] = {f"k{number}": "text" for number in range(98)}
    mapper.restore_columns({"jobs": stored | {"id": "text", "extra_fields": "json"}})
    rows = [record(mapper, **{key: "v"}) for key in ("k1", "new1", "new2", "new3")]
    assert [row.get("extra_fields") for row in rows] == [None, None, None, {"new3": "v"}]
    assert [column["name"] for column in mapper.new_columns()["jobs"]] == ["new1", "new2"]


def test_a_column_keeps_the_type_of_earlier_runs() -> None:
    """A value that does not fit the type of its column goes to a variant column."""
    mapper = RecordMapper(naming)
    mapper.restore_columns({"jobs": {"size": "double", "size__v_json": "json"}})
    row = record(mapper, size={"w": 1})
    assert (row["size__v_json"], mapper.new_columns()["jobs"]) == ({"w": 1}, [])


def test_spellings_of_a_key_share_one_column() -> None:
    """A column has one type, whichever spelling of its key came first, and how."""
    mapper = RecordMapper(naming)
    record(mapper, results={"a": {"width": [1]}})  # a look at "width", which makes no column
    rows = record(mapper, results=[{"Width": 1}, {"width": "x"}, {"WIDTH": 2}])["results"]
    assert rows[1]["width__v_text"] == "x"
    assert [rows[0]["width"], rows[2]["width"]] == [1.0, 2.0]
    assert undocumented(mapper)["jobs__results"] == 3


def test_memory_does_not_grow_with_the_number_of_keys() -> None:
    """The columns of at most 10,000 keys are remembered."""
    mapper = RecordMapper(lambda key: "x" if key.startswith("k") else key)
    for number in range(MAX_KEYS + 10):
        record(mapper, **{f"k{number}": number})
    assert len(mapper.columns["jobs"]) == MAX_KEYS


KEYS = st.sampled_from(
    [
        *("progress", "error_message", "errorMessage", "completed_at", "total_files", "job_type"),
        *("width", "Width", "_dlt_id", "foo__bar", "Größe", "大小", "", " ", "results_info", "ID"),
        *(
            "filename",
            "savedPercent",
            "saved_percent",
            "job_id",
            "value",
            "extra_fields",
            "mimeType",
        ),
    ]
) | st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=6)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=6) | st.sampled_from(
    [
        "12",
        "1e3",
        "0x1F",
        "NaN",
        "1_0",
        "true",
        "2026-05-09T10:00:00.5Z",
        "2026-05-09",
        "12:30",
        "{}",
    ]
)
NUMBERS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53 + 1, 2**63, 2**64 - 1, -0.0, 0.5, 5e-324])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=8)


def column_of(key: str) -> str:
    """Return the column name of a key, as the tables of this project have it."""
    name = naming(key) if key.strip() else "x"
    return name.removeprefix("_") if name.startswith("_dlt_") else name


def assert_all_found(fields: dict[str, Any], row: dict[str, Any]) -> None:
    """Check that each value but null is in the row."""
    for key, value in fields.items():
        assert value is None or is_found(key, value, column_of(key), row), key


@given(st.lists(st.tuples(OBJECTS, st.lists(OBJECTS, max_size=3)), min_size=1, max_size=5))
def test_every_value_of_any_job_is_found_again(jobs: list[Any]) -> None:
    """Whatever fields jobs and results have, and whatever came before: nothing is lost."""
    mapper = RecordMapper(naming)
    for fields, results in jobs:
        raw = fields | {"results": results} | JOB
        row = mapper.job_record(ListedJob.parse(raw))
        assert_all_found({key: fields[key] for key in fields.keys() - JOB.keys()}, row)
        for item, stored in zip(results, row["results"], strict=True):
            assert_all_found(item, stored)
        assert row.keys() & JOB_COLUMNS.keys() >= {"id", "created_at"}
    assert max(undocumented(mapper).values()) <= 100


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=60), max_size=8))
def test_no_jobs_make_more_than_100_columns(jobs: list[dict[str, Any]]) -> None:
    """However many keys there are, and in whatever runs, columns stay at most 100 per table."""
    mapper = RecordMapper(naming)
    stored: dict[str, Any] = {}
    for fields in jobs:
        mapper.restore_columns({"jobs": stored, "jobs__results": {}})
        mapper.job_record(ListedJob.parse(fields | {"results": [fields]} | JOB))
        stored |= {str(new["name"]): new["data_type"] for new in mapper.new_columns()["jobs"]}
    assert len(stored.keys() - JOB_COLUMNS.keys() - {"extra_fields"}) <= 100
    assert not set(stored) & set(JOB_COLUMNS)
    assert RESULT_COLUMNS["id"]["data_type"] == "text"
