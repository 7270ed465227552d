"""The demo API keeps to the documented one, over HTTP, and its account lives as accounts do."""

import re
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator, FormatChecker

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES, Job
from convertly_source.demo import DEMO_KEY, JOB_TYPES, DemoAccount, DemoAPI

Serve = Callable[..., DemoAPI]

STATUSES = (*OPEN_STATUSES, *FINAL_STATUSES)
INTEGER = {"type": "integer"}
JOB = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "job_type": {"enum": ["convert", "compress", "media_tool", "transfer"]},
        "status": {"enum": ["pending", "processing", "completed", "failed"]},
        "total_files": INTEGER,
        "completed_files": INTEGER,
        "failed_files": INTEGER,
        "progress": INTEGER,
        "error_message": {"type": ["string", "null"]},
        "results": {"type": ["object", "array", "null"]},
        "created_at": {"type": "string", "format": "date-time"},
        "completed_at": {"type": ["string", "null"], "format": "date-time"},
    },
}
JOB["required"] = list(JOB["properties"])  # stricter than documented: the demo leaves none out
PAGINATION = {
    "type": "object",
    "properties": {
        "limit": INTEGER,
        "offset": INTEGER,
        "total": INTEGER,
        "hasMore": {"type": "boolean"},
    },
    "required": ["limit", "offset", "total", "hasMore"],
}
JOB_LIST_RESPONSE = {
    "type": "object",
    "properties": {"jobs": {"type": "array", "items": JOB}, "pagination": PAGINATION},
    "required": ["jobs", "pagination"],
}
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "upgradeUrl": {"type": "string"}},
    "required": ["error"],
}
FORMATS = FormatChecker(["uuid"])


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
    return not isinstance(value, str) or bool(re.fullmatch(pattern, value))


def _get(api: DemoAPI, query: str = "", headers: dict[str, str] | None = None) -> Any:
    headers = {"x-api-key": DEMO_KEY} if headers is None else headers
    return requests.get(f"{api.url}/api/jobs{query}", headers=headers, timeout=10)


def _page(api: DemoAPI, query: str = "") -> Any:
    answer = _get(api, query)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


def _ids(jobs: list[Job]) -> list[str]:
    return [job["id"] for job in jobs]


def _all(api: DemoAPI) -> list[Job]:
    total = len(api.account.jobs)
    pages = [_page(api, f"?limit=100&offset={offset}") for offset in range(0, total, 100)]
    return [job for page in pages for job in page["jobs"]]


def _shape(results: Any) -> str:
    if isinstance(results, list):
        return f"list of {type(results[0]).__name__}" if results else "empty list"
    if not results:
        return "null" if results is None else "empty object"
    if "files" in results:
        archive = str(results["files"][0].get("downloadUrl")).startswith("data:")
        return "data: URL" if archive else f"files and {[key for key in results if key != 'files']}"
    return "file" if "file" in results else "bare object"


@pytest.mark.parametrize("query", ["", "?limit=100", "?limit=100&offset=2900", "?status=failed"])
def test_answers_are_valid(serve: Serve, query: str) -> None:
    """Answers validate against the documented schema of a list of jobs."""
    validator = Draft202012Validator(JOB_LIST_RESPONSE, format_checker=FORMATS)
    page = _page(serve(DemoAccount()), query)
    validator.validate(page)
    assert page["jobs"]
    page["jobs"][0]["created_at"] = "yesterday"
    assert not validator.is_valid(page)


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {DEMO_KEY}"}, {"x-api-key": DEMO_KEY}]
)
def test_both_key_headers_are_taken(serve: Serve, headers: dict[str, str]) -> None:
    """The key opens the account in either of the documented headers."""
    answer = _get(serve(), "?limit=1", headers)
    assert (answer.status_code, len(answer.json()["jobs"])) == (200, 1)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "Missing API key."),
        ({"Authorization": "Bearer cvly_other"}, "Invalid API key."),
        ({"x-api-key": "cvly_other"}, "Invalid API key."),
    ],
)
def test_other_keys_are_refused(serve: Serve, headers: dict[str, str], error: str) -> None:
    """Without the account's key the answer is a 401 in the documented form."""
    answer = _get(serve(), "", headers)
    Draft202012Validator(ERROR).validate(answer.json())
    assert (answer.status_code, answer.json()["error"]) == (401, error)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=-1", "limit=ten", "limit=1.5"),
        *("offset=-1", "offset=x", "status=cancelled", "status=COMPLETED"),
    ],
)
def test_bad_parameters_are_refused(serve: Serve, query: str) -> None:
    """A parameter out of its documented range is answered with a 400."""
    answer = _get(serve(), f"?{query}")
    Draft202012Validator(ERROR).validate(answer.json())
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/", "/api", "/api/jobs/1", "/v1/api/jobs"])
def test_there_is_one_endpoint(serve: Serve, path: str) -> None:
    """Any other path is answered with a 404."""
    answer = requests.get(serve().url + path, headers={"x-api-key": DEMO_KEY}, timeout=10)
    Draft202012Validator(ERROR).validate(answer.json())
    assert answer.status_code == 404


def test_limit_is_20_by_default(serve: Serve) -> None:
    """Without parameters the answer has the newest 20 jobs."""
    api = serve(DemoAccount(25))
    page = _page(api)
    assert _ids(page["jobs"]) == _ids(api.account.jobs[:4:-1])
    assert page["pagination"] == {"limit": 20, "offset": 0, "total": 25, "hasMore": True}


@pytest.mark.parametrize(
    ("limit", "offset", "count", "has_more"),
    [
        *((10, 0, 10, True), (10, 14, 10, True), (10, 15, 10, False), (10, 20, 5, False)),
        *((10, 25, 0, False), (10, 99, 0, False), (25, 0, 25, False), (24, 0, 24, True)),
    ],
)
def test_pages_are_cut_by_limit_and_offset(
    serve: Serve, limit: int, offset: int, count: int, *, has_more: bool
) -> None:
    """A page has the jobs from offset on, and says whether more follow."""
    api = serve(DemoAccount(25))
    page = _page(api, f"?limit={limit}&offset={offset}")
    assert _ids(page["jobs"]) == _ids(api.account.jobs[::-1][offset : offset + limit])
    assert len(page["jobs"]) == count
    expected = {"limit": limit, "offset": offset, "total": 25, "hasMore": has_more}
    assert page["pagination"] == expected


@pytest.mark.parametrize("status", STATUSES)
def test_status_filters_before_the_page_is_cut(serve: Serve, status: str) -> None:
    """With a status, jobs and total are of that status only."""
    api = serve(DemoAccount(250))
    page = _page(api, f"?limit=1&offset=1&status={status}")
    jobs = [job for job in api.account.jobs[::-1] if job["status"] == status]
    assert _ids(page["jobs"]) == _ids(jobs[1:2])
    assert page["pagination"]["total"] == len(jobs) > 1


def test_an_api_may_list_in_any_order(serve: Serve) -> None:
    """The list comes in the order that the API was given."""
    api = serve(DemoAPI(DemoAccount(9), order=lambda jobs: jobs))
    assert _ids(_page(api)["jobs"]) == _ids(api.account.jobs)


def test_the_account_lives_between_answers(serve: Serve) -> None:
    """What happens before an answer is in it, and the queries are kept."""
    api = serve(DemoAccount(3))
    api.before_answer = lambda account: account.jobs.append(account.create() | {"id": "twin"})
    totals = [_page(api, f"?limit={limit}")["pagination"]["total"] for limit in (1, 2)]
    assert totals == [5, 7]
    assert api.requests == [{"limit": "1"}, {"limit": "2"}]


def test_the_seed_makes_the_account() -> None:
    """The same seed makes the same jobs, to the last link, and another seed others."""
    assert DemoAccount(300, seed=7).jobs == DemoAccount(300, seed=7).jobs
    assert DemoAccount(300, seed=7).jobs != DemoAccount(300, seed=8).jobs


def test_the_account_shows_everything_that_is_known(serve: Serve) -> None:
    """The default account has each type, status and shape of results, in four months or more."""
    jobs = _all(serve(DemoAccount()))
    assert len({job["id"] for job in jobs}) == 3000
    assert {job["job_type"] for job in jobs} == set(JOB_TYPES)
    assert {job["status"] for job in jobs} == set(STATUSES)
    assert len({job["created_at"][:7] for job in jobs}) >= 4
    assert {_shape(job["results"]) for job in jobs if job["status"] == "completed"} == {
        *("null", "empty list", "empty object", "list of dict", "list of str"),
        *("files and ['storage']", "data: URL", "file", "bare object"),
    }
    percents = [
        type(file["savedPercent"])
        for job in jobs
        if _shape(job["results"]) == "files and ['storage']"
        for file in job["results"]["files"]
    ]
    assert set(percents) == {int, float}


def test_unfinished_jobs_are_the_last_ones_and_some_stuck_ones() -> None:
    """Most jobs have ended; the last eight and a few older ones have not."""
    account = DemoAccount()
    places = [account.jobs.index(job) for job in account.unfinished()]
    assert places[-8:] == list(range(2992, 3000))
    assert places[:-8] == [99, 599, 1099, 1599, 2099, 2599]


def test_a_job_is_created_pending_and_later() -> None:
    """A new job is the newest, pending, after the gap, and with the given fields."""
    account = DemoAccount(0)
    first, second = account.create(), account.create(timedelta(hours=2), progress=None)
    assert (first["status"], first["results"], first["completed_at"]) == ("pending", None, None)
    assert first["created_at"] == "2026-05-01T00:01:00.000Z"
    assert second["created_at"] == "2026-05-01T02:01:00.000Z"
    assert second["progress"] is None
    assert account.jobs == account.unfinished() == [first, second]


def test_a_job_progresses() -> None:
    """Progress makes a job processing, with results that are not final, and never ends it."""
    account = DemoAccount(0)
    job = account.create()
    seen = []
    for _ in range(9):
        account.progress(job)
        seen.append(job["progress"])
    assert seen == sorted(seen)
    assert seen[:2] == [50, 75]
    assert seen[-1] < 100
    assert (job["status"], job["completed_at"]) == ("processing", None)
    assert job["results"]
    assert account.unfinished() == [job]


def test_a_job_completes() -> None:
    """A completed job has done all its files, at a time after its creation."""
    account = DemoAccount(0)
    job = account.create(total_files=3)
    account.finish(job)
    assert (job["status"], job["progress"], job["error_message"]) == ("completed", 100, None)
    assert (job["completed_files"], job["failed_files"]) == (3, 0)
    assert job["completed_at"] == "2026-05-01T00:01:21.000Z"
    assert account.unfinished() == []


def test_a_job_fails() -> None:
    """A failed job has a reason, no results, and keeps the progress it had."""
    account = DemoAccount(0)
    job = account.create(total_files=3)
    account.progress(job)
    account.finish(job, has_failed=True)
    assert (job["status"], job["progress"], job["results"]) == ("failed", 50, None)
    assert job["error_message"]
    assert (job["completed_files"], job["failed_files"]) == (0, 3)
    assert account.unfinished() == []


def test_a_cancelled_job_vanishes(serve: Serve) -> None:
    """A cancelled job is no longer listed; its twin in all fields is."""
    account = DemoAccount(0)
    job = account.create()
    account.jobs.append(dict(job))
    account.cancel(job)
    assert _page(serve(account))["pagination"]["total"] == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="has 127.0.0.1 only")
def test_it_listens_on_one_address_only(serve: Serve) -> None:
    """The port is taken on 127.0.0.1, and free on any other address."""
    port = int(serve().url.removeprefix("http://127.0.0.1:"))
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))
    with socket.socket() as same, pytest.raises(OSError, match="in use"):
        same.bind(("127.0.0.1", port))


def test_it_stops_listening() -> None:
    """After `serve` nothing answers at the address."""
    with DemoAPI(DemoAccount(1)).serve() as api:
        assert _get(api).ok
    with pytest.raises(requests.ConnectionError):
        _get(api)
