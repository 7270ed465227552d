"""A job of any shape becomes rows of one shape, without credentials and without a loss."""

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention
from helpers.warehouse import Warehouse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convertly_source.api.body import parse_body
from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.reading.job import ListedJob
from convertly_source.reading.run import Changes
from convertly_source.tables.records import RecordMapper, fingerprint, rejected_record
from convertly_source.tables.schema import RESULT_COLUMNS, TABLES
from convertly_source.tables.values import storable_json

parse = ListedJob.parse
JOB = {"id": "a", "status": "completed", "created_at": "2026-05-09T10:00:00.000Z"}
LINK = "https://files.convertly.sh/a.webp"
SIGNED = f"{LINK}?token=s3cr3t"
DATA = "data:application/gzip;base64,H4sI"
naming = NamingConvention(50).normalize_identifier
NAME = naming(LINK)


def extra(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the column of fields that have no column of their own."""
    return {"extra_fields": fields}


def _record(results: Any = None, **job: Any) -> dict[str, Any]:
    return RecordMapper(naming).job_record(parse(JOB | {"results": results} | job))


def _rows(results: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _record(results)["results"]
    assert {item.pop("job_id") for item in rows} <= {"a"}
    return rows


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


# Any JSON value: the keys and texts are those that dlt, SQL or this source might trip over.
FIELDS = (
    *("filename", "originalSize", "original_size", "sizeBytes", "savedPercent", "saved_percent"),
    *("appliedQuality", "downloadUrl", "mimeType", "value", "job_id", "files", "file", "results"),
)
ODD_KEYS = (
    *("", " ", "$", "_", "__", "_dlt_id", "_dlt_parent_id", "_dlt_list_idx", "_dlt_load_id"),
    *("id", "list", "jobs", "v_text", "a b", "a_b", "aB", "A-b", "a__b", "é", "select", '"', "x"),
)
ODD_TEXTS = (
    *("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"),  # first: they set a column's type
    *("\x00", "\uf026", "\uf026x", "\uf0271.5", "\uf02a\uf02a", "\uf028", "\uf029{", "\uf02b0"),
    *("12", "1.5", "1e18", "70000000000000000", "9" * 20, "inf", "nan", "NaN", "true", "null"),
    *(
        "2026-05-09T10:00:00Z",
        "2026-05-09",
        "P1D",
        "12:30",
        "[1]",
        "{",
        SIGNED,
        DATA,
        "\u2028",
        "\U0001f600",
        "'; --",
    ),
)
KEYS = st.sampled_from(FIELDS) | st.sampled_from(ODD_KEYS) | st.text(max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(ODD_TEXTS),
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, ANY, max_size=3)


@st.composite
def _results(draw: st.DrawFn) -> tuple[Any, int]:
    """Make a value of `results` and say how many items it has."""
    shape = draw(st.sampled_from(["list", "files", "file", "nothing", "one"]))
    items = draw(st.lists(ANY, max_size=3))
    named = ("files", "file")
    beside = {key: item for key, item in draw(OBJECTS).items() if key not in named}
    if shape == "list":
        return items, len(items)
    if shape == "files":
        return beside | {"files": items}, len(items)
    if shape == "file":
        file = draw(OBJECTS.filter(bool))
        return beside | {"file": file}, _count(file)
    if shape == "nothing":
        return draw(st.sampled_from([None, [], {}, {"files": None}, {"files": []}])), 0
    one = beside or draw(SCALARS.filter(lambda scalar: scalar is not None))
    return one, _count(one)


def _count(value: Any) -> int:
    """Count the items in a value that is no list: several only in a map of files."""
    groups = list(value.values()) if isinstance(value, dict) else []
    files = [file for group in groups for file in (group if isinstance(group, list) else [group])]
    documented = RESULT_COLUMNS.keys() - {"job_id", "value"}
    is_map = all(
        isinstance(file, dict)
        and any(naming(key if key.strip() else "x") in documented for key in file)
        for file in files
    )
    return len(files) if files and [] not in groups and is_map else 1


@pytest.mark.parametrize(
    ("results", "rows", "info"),
    [
        (None, [], None),
        ([], [], None),
        ({}, [], None),
        ({"files": []}, [], None),
        ({"files": None, "storage": 1}, [], {"storage": 1}),
        ({"files": {}}, [], None),
        ({"file": None}, [], None),
        ([{"filename": "a"}, {"filename": "b"}], [{"filename": "a"}, {"filename": "b"}], None),
        ([LINK, "b"], [{"value": LINK}, {"value": "b"}], None),
        ([None, 1, True], [{}, {"value__v_bigint": 1}, {"value__v_bool": True}], None),
        ([[1, 2], {}], [{"value__v_json": [1, 2]}, {}], None),
        ("done", [{"value": "done"}], None),
        (False, [{"value__v_bool": False}], None),
        ({"filename": "a", "mimeType": "m"}, [{"filename": "a", "mime_type": "m"}], None),
        ({"file": {"id": "s", "folder_id": None}}, [{"id": "s"}], None),
        ({"file": {"filename": "a"}, "b": 1}, [{"filename": "a"}], {"b": 1}),
        ({"file": "a.webp"}, [{"file": "a.webp"}], None),
        ({"files": 2, "filename": "a"}, [{"files": 2.0, "filename": "a"}], None),
        ({"files": {"filename": "a"}}, [{"filename": "a"}], None),
        (
            {"files": [{"filename": "a"}, "b"], "storage": {"saved": True, "notice": None}},
            [{"filename": "a"}, {"value": "b"}],
            {"storage": {"saved": True, "notice": None}},
        ),
        (
            {"files": [{"filename": "a"}], "file": {"filename": "b"}},
            [{"filename": "a"}],
            {"file": {"filename": "b"}},
        ),
    ],
)
def test_results_of_any_shape_become_rows(
    results: Any, rows: list[dict[str, Any]], info: dict[str, Any] | None
) -> None:
    """Each item is a row, in order, and what stands beside the items is kept as it is."""
    assert _rows(results) == rows
    assert _record(results)["results_info"] == info


def test_rows_keep_their_order() -> None:
    """Rows come in the order of the items, however many there are."""
    items = [{"filename": str(number)} for number in range(300)][::-1]
    assert _rows({"files": items}) == items


@pytest.mark.parametrize(
    "item",
    [
        {"downloadUrl": "u", "download_url": None},
        {"download_url": None, "downloadUrl": "u"},
        {"downloadUrl": None, "download_url": "u"},
        {"downloadUrl": "u", "download_url": "u"},
    ],
)
def test_keys_for_one_column_fold_into_it(item: dict[str, Any]) -> None:
    """Two spellings of one key fill one column when only one has a value, or both the same."""
    assert _rows([item]) == [{"download_url": "u"}]


@pytest.mark.parametrize(
    ("item", "stored"),
    [
        (
            {"DownloadURL": "u", "download_url": "later", "download-url": "x"},
            {"download_url": "u", "extra_fields": {"download_url": "later", "download-url": "x"}},
        ),
        (
            {"width": 1, "Width": True},
            {"width": 1.0, "extra_fields": {"Width": True}},
        ),
        ({"foo": "a", SIGNED: 1, f"{LINK}?2": 2}, {"foo": "a", NAME: 1.0, **extra({LINK: 2})}),
        ({"job_id": "b"}, extra({"job_id": "b"})),
        ({"jobId": "a"}, {}),
        ({"extra_fields": 1, "extraFields": 2}, extra({"extra_fields": 1, "extraFields": 2})),
    ],
)
def test_the_losers_of_one_column_are_extra_fields(
    item: dict[str, Any], stored: dict[str, Any]
) -> None:
    """When several keys have one column, the first keeps it, and no other value is lost."""
    assert _rows([item]) == [stored]


def test_extra_fields_keep_keys_apart_that_redaction_makes_equal() -> None:
    """Two links that differ in their query strings only are two keys, without the queries."""
    item = {"a": 1, "A": {f"{LINK}?1": 1, f"{LINK}?2": 2, f"{LINK} (2)": 3}}
    expected = {LINK: 1, f"{LINK} (2)": 2, f"{LINK} (2) (2)": 3}
    assert _rows([item]) == [{"a": 1.0, "extra_fields": {"A": expected}}]


@pytest.mark.parametrize(
    ("key", "column"),
    [("", "x"), (" ", "x"), ("$", "x"), ("_dlt_id", "dlt_id"), ("Größe", "gr_e")],
)
def test_odd_keys_get_a_column(key: str, column: str) -> None:
    """A key that is no name, or one of dlt's own, keeps its value under another name."""
    assert _rows([{key: "v"}]) == [{column: "v"}]


def test_a_row_knows_its_job() -> None:
    """The column job_id is the job's id, whatever the item says."""
    assert _record([{"job_id": "b"}])["results"][0]["job_id"] == "a"


@pytest.mark.parametrize("status", ["pending", "processing", "cancelled", None, 5, ["completed"]])
def test_unfinished_jobs_have_no_results(status: Any) -> None:
    """Until a job has ended its results are partial and are left out."""
    record = _record({"files": [{"filename": "a"}], "storage": 1}, status=status)
    assert (record["results"], record["results_info"]) == ([], None)


def test_failed_jobs_may_have_results() -> None:
    """What a failed job has done is kept."""
    record = _record(["a"], status="failed")
    assert record["results"] == [{"value": "a", "job_id": "a"}]


def test_a_jobs_own_fields_get_their_types() -> None:
    """Known fields get their column's type, and unknown ones become columns too."""
    record = _record(
        progress=50.0, jobType="convert", error_message=404, newField=1, results_info=1
    )
    assert record == {
        "id": "a",
        "status": "completed",
        "created_at": datetime(2026, 5, 9, 10, tzinfo=timezone.utc),
        "progress": 50,
        "job_type": "convert",
        "error_message__v_bigint": 404,
        "new_field": 1.0,
        "results_info": None,
        "results": [],
        "extra_fields": {"results_info": 1},
    }


def test_a_key_of_dlts_marks_alone_gets_a_name() -> None:
    """A key of which nothing is left has the name that an empty one has."""
    assert _record(**{"\uf026": 1})["x"] == _record(**{"": 1})["x"] == 1.0


@pytest.mark.parametrize("text", ["\uf026x", "\uf0271.5", "\uf02a\uf029x: y"])
def test_a_text_loses_the_marks_of_dlt(text: str) -> None:
    """A text that begins as dlt's own notation of numbers and times does is not taken for one."""
    rest = text.lstrip("\uf026\uf027\uf029\uf02a")
    record = _record([{"filename": text, "note": text}], error_message=text)
    assert record["error_message"] == rest
    assert record["results"] == [{"job_id": record["id"], "filename": rest, "note": rest}]


def test_the_end_of_a_job_is_a_time() -> None:
    """A usable completed_at is a time in UTC, any other is in a variant column as it came."""
    stored = _record(completed_at="2026-05-09T12:00:07+02:00")["completed_at"]
    assert stored == datetime(2026, 5, 9, 10, 0, 7, tzinfo=timezone.utc)
    assert _record(completed_at="soon")["completed_at__v_text"] == "soon"
    assert _record(completed_at=7)["completed_at__v_bigint"] == 7


@pytest.mark.parametrize("zone", ["Z", "+00:00", "+02:00", "-11:30", ""])
@pytest.mark.parametrize("decimals", range(7))
def test_a_time_is_read_however_it_is_written(zone: str, decimals: int) -> None:
    """A time has no zone (UTC), Z or an offset, and up to six decimals; it becomes aware."""
    text = f"2026-05-09T10:00:00{'.123456'[: decimals + 1] if decimals else ''}{zone}"
    sign, hours, minutes = int(f"{zone[:1]}1") if len(zone) > 1 else 1, zone[1:3], zone[4:]
    offset = sign * timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    fraction = timedelta(microseconds=int(f"{'123456'[:decimals]:0<6}"))
    at = parse({"created_at": text}).created_at
    assert at == datetime(2026, 5, 9, 10, tzinfo=timezone.utc) - offset + fraction


@pytest.mark.parametrize("text", ["Z", "2026-05-09T10:00:00+02:00Z", "2026-05-09T25:00:00Z", "7Z"])
def test_what_looks_like_a_time_may_be_none(text: str) -> None:
    """A text that ends as a time does and is none is no time of creation."""
    assert parse({"created_at": text}).created_at is None


def test_a_date_is_its_midnight() -> None:
    """A date alone, with Z or without, is an aware time too: ages can be compared."""
    for text in ("2026-05-09", "2026-05-09Z"):
        at = parse({"created_at": text}).created_at
        assert at == datetime(2026, 5, 9, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (DATA, "data:application/gzip"),
        (f" {DATA.upper()}\n", "DATA:APPLICATION/GZIP"),
        ("data:,hello", "data:"),
        ("data:image/png,\n\n", "data:image/png"),
        ("data: none", "data: none"),
        (SIGNED, LINK),
        (f"{LINK}#top", f"{LINK}#top"),
        ("HTTPS://H/a?Token=s3cr3t", "HTTPS://H/a"),
        ("https://h/a b.webp?token=s3cr3t", "https://h/a b.webp"),
        (f"Can't read {SIGNED}&b=1 (404)", f"Can't read {LINK} (404)"),
        (f"{LINK}\n{SIGNED}", f"{LINK}\n{LINK}"),
        ("Why? a:b", "Why? a:b"),
        ({"a": [{"b": SIGNED}], SIGNED: DATA}, {"a": [{"b": LINK}], LINK: "data:application/gzip"}),
    ],
)
def test_credentials_and_contents_are_cut(value: Any, stored: Any) -> None:
    """A link is cut to its address and a data: URL to its media type, wherever they stand."""
    assert storable_json(value) == stored


@pytest.mark.parametrize(
    "job",
    [
        {"error_message": f"Can't read {SIGNED}"},
        {"source": {"parts": [SIGNED]}},
        {SIGNED: 1},
        {"results": {"files": [{"downloadUrl": SIGNED}], "storage": {"notice": SIGNED}}},
        {"results": [SIGNED]},
        {"results": [[SIGNED], {"a": {SIGNED: 1}}]},
    ],
)
def test_links_are_kept_when_asked(job: dict[str, Any]) -> None:
    """Queries of links are only in a record that was asked for with them."""
    texts = [
        " ".join(_texts(RecordMapper(naming, keep_signed_urls=keep).job_record(parse(JOB | job))))
        for keep in (False, True)
    ]
    assert ["s3cr3t" in text or "s3cr3t" in text.replace("_", "") for text in texts] == [
        False,
        True,
    ]


def test_contents_are_never_kept() -> None:
    """A data: URL is cut even when links are kept."""
    record = RecordMapper(naming, keep_signed_urls=True).job_record(
        parse(JOB | {"results": [SIGNED, DATA]})
    )
    assert [item["value"] for item in record["results"]] == [SIGNED, "data:application/gzip"]


@pytest.mark.parametrize(
    ("identity", "known"),
    [
        *(("a", "a"), (" a ", " a "), (7, "7"), (0, "0")),
        *((None, None), ("", None), (" ", None), (True, None), (1.5, None), (["a"], None)),
    ],
)
def test_an_id_is_text_or_a_whole_number(identity: Any, known: str | None) -> None:
    """Any other id is not usable, nor is a job without one."""
    read = parse(JOB | {"id": identity})
    assert (read.id, read.is_usable) == (known, known is not None)


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        *(("10:00:00Z", 0), ("10:00:00+00:00", 0), ("10:00:00", 0), ("12:30:00+02:30", 0)),
        *(("04:00:00-06:00", 0), ("10:00:00.1Z", 100000), ("10:00:00.12+00:00", 120000)),
        *(("10:00:00.123Z", 123000), ("10:00:00.1234Z", 123400), ("10:00:00.12345", 123450)),
        *(("10:00:00.123456Z", 123456), ("11:00:00.123456+01:00", 123456)),
    ],
)
def test_times_are_read_in_any_documented_form(text: str, microsecond: int) -> None:
    """A time of creation is in UTC, to the microsecond; one without a zone is in UTC already."""
    read = parse(JOB | {"created_at": f"2026-05-09T{text}"})
    assert read.created_at == datetime(2026, 5, 9, 10, 0, 0, microsecond, timezone.utc)
    assert read.created_at.tzinfo is timezone.utc
    assert read.is_usable


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "soon", "12:30", "P1D", 1778320800, 1.5, True, ["2026-05-09T10:00:00Z"]),
        *("2026-02-30T10:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"),
        *("inf", "nan", "70000000000000000", "0:"),
    ],
)
def test_other_times_are_not_usable(value: Any) -> None:
    """What is no time, or one that can't be had in UTC, makes a job unusable and no error."""
    read = parse(JOB | {"created_at": value})
    assert (read.created_at, read.is_usable) == (None, False)


@given(st.text() | st.text("0123456789-:.+TZWPe ", max_size=28))
def test_any_text_may_stand_for_a_time(text: str) -> None:
    """A time of creation is None or in UTC, never an error."""
    read = parse({"created_at": text})
    assert read.created_at is None or read.created_at.tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"id": None}, "no usable id"),
        ({"created_at": "soon"}, "no usable created_at"),
        ({"id": "", "created_at": None}, "no usable id and no usable created_at"),
    ],
)
def test_what_can_not_be_stored_is_recorded(job: dict[str, Any], reason: str) -> None:
    """A rejected job is kept as listed, without credentials, with the reason and the time."""
    rejected = JOB | job | {"results": [SIGNED]}
    record = rejected_record(parse(rejected))
    assert record["reason"] == reason
    assert record["raw"] == rejected | {"results": [LINK]}
    assert record["fingerprint"] == fingerprint(rejected)
    assert abs((datetime.now(timezone.utc) - record["noticed_at"]).total_seconds()) < 60


@pytest.mark.parametrize("entry", [None, "text", SIGNED, 5, 1.5, True, ["a", {"b": 1}]])
def test_an_entry_that_is_no_object_is_recorded(entry: Any) -> None:
    """Any JSON value among the jobs is kept in a row of its own, under `value`."""
    record = rejected_record(parse(entry))
    assert record["reason"] == "not an object"
    assert record["raw"] == {"value": LINK if entry == SIGNED else entry}


def test_a_job_that_fails_to_be_mapped_is_recorded() -> None:
    """A failure that nobody foresaw sets one job aside, with the kind of the error."""

    def failing_naming(key: str) -> str:
        if key == "boom":
            raise KeyError(key)
        return naming(key)

    jobs = [parse(JOB | {"id": "a"}), parse(JOB | {"id": "b", "boom": 1}), parse(JOB | {"id": "c"})]
    rows = dict(RecordMapper(failing_naming).tables(Changes(jobs=jobs)))
    assert [job["id"] for job in rows["jobs"]] == ["a", "c"]
    [record] = rows["rejected_jobs"]
    assert record["reason"] == "could not be mapped (KeyError)"
    assert record["raw"] == JOB | {"id": "b", "boom": 1}


def test_only_content_makes_a_fingerprint() -> None:
    """Links signed anew and keys in another order are no change; anything else is."""
    job = JOB | {"results": [{"filename": "a", "downloadUrl": SIGNED}]}
    same: dict[str, Any] = dict(reversed(JOB.items())) | {
        "results": [{"downloadUrl": f"{LINK}?x", "filename": "a"}]
    }
    assert fingerprint(job) == fingerprint(same)
    others: list[dict[str, Any]] = [
        JOB | {"results": [{"filename": "a", "downloadUrl": f"{LINK}2?x"}]},
        JOB,
        {},
    ]
    assert len({fingerprint(other) for other in (job, same, *others)}) == 4


@given(_results())
@example(([-(2**63) - 1], 1))
def test_any_results_give_a_row_for_each_item(results: tuple[Any, int]) -> None:
    """No item of any JSON value is lost or made up."""
    value, count = results
    assert len(_record(parse_body(json.dumps(value).encode()))["results"]) == count


@st.composite
def _links(draw: st.DrawFn) -> str:
    """Make a text with a link that has a query, alone or in a message."""
    part = st.text("abcXYZ019-._~%/:@!$&'()*+,;=", max_size=8)
    scheme = draw(st.sampled_from(["http", "https", "HTTPS", "Http"]))
    query = draw(part) + "s3cr3t" + draw(part | st.just("?") | st.just("#top"))
    link = f"{scheme}://{draw(part)}?{query}"
    before, after = draw(st.sampled_from([("", ""), ("see ", " (404)"), ("'", "'"), ("\n", "\n")]))
    return (
        before + draw(st.just("") | st.text(max_size=5).map(lambda text: text + " ")) + link + after
    )


@given(
    st.recursive(
        _links(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(_links() | KEYS, inner, max_size=3)
            | st.fixed_dictionaries({"files": st.lists(inner, max_size=3), "storage": inner})
        ),
    ),
    st.sampled_from(["results", "error_message", "created_at", "completed_at", "job_type", "new"]),
    st.sampled_from(["completed", "processing"]),
)
def test_no_query_of_a_link_is_stored(value: Any, field: str, status: str) -> None:
    """Wherever in a job a link stands, its query is in no text of the record."""
    record = RecordMapper(naming).job_record(parse(JOB | {"status": status, field: value}))
    assert [text for text in _texts(record) if "s3cr3t" in text.lower().replace("_", "")] == []


@pytest.mark.slow
@settings(max_examples=6)
@given(st.lists(_results(), min_size=10, max_size=20))
@example([([{key: text} for key in (*FIELDS, f"a{text}")], len(FIELDS) + 1) for text in ODD_TEXTS])
def test_any_results_load(results: list[tuple[Any, int]]) -> None:
    """Any JSON value loads into DuckDB, item by item, and no number opens a second column."""
    account = DemoAccount(0)
    for value, _ in results:
        account.create(status="completed", results=value)
    with tempfile.TemporaryDirectory() as folder, DemoAPI(account).serve() as api:
        warehouse = Warehouse(Path(folder), folder)
        warehouse.load(api)
        rows = warehouse.rows("jobs__results", "job_id", "_dlt_list_idx")
        assert rows == sorted(
            (job["id"], place)
            for job, (_, count) in zip(account.jobs, results, strict=True)
            for place in range(count)
        )
        assert warehouse.rows("jobs", "id") == sorted((job["id"],) for job in account.jobs)
        tables = {name for (name,) in warehouse.query("SELECT table_name FROM duckdb_tables()")}
        assert {name for name in tables if not name.startswith("_dlt")} <= {*TABLES}
