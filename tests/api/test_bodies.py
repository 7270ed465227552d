"""Whatever JSON the API answers, a run ends: with rows, with rejected rows, or with exit code 4."""

from collections.abc import Iterator
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.model import Shelf
from helpers.warehouse import Warehouse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convertly_source.api.client import JobsClient
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply
from convertly_source.errors import ResponseError, explained

pytestmark = pytest.mark.slow
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.sampled_from(["2026-05-01T10:00:00Z", "2026-05-01T12:00:00.5+02:00", "2026-05-02"])
JOBS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b", "c"]) | SCALARS,
        "created_at": TIMES | SCALARS,
        "completed_at": TIMES | SCALARS,
        "status": st.sampled_from(["pending", "processing", "completed", "failed"]) | SCALARS,
        "progress": SCALARS,
        "error_message": SCALARS,
        "results": VALUES,
        "more": VALUES,
    },
)
PAGES = st.fixed_dictionaries(
    {
        "jobs": st.lists(JOBS, max_size=5) | st.lists(VALUES, max_size=3) | VALUES,
        "pagination": st.fixed_dictionaries(
            {"total": st.integers(0, 9) | st.integers(0, 2**70) | SCALARS},
            optional={"hasMore": st.booleans()},
        ),
    }
)
MOST_REQUESTS = 400  # a run that asks for more of so small an account does not end
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def api() -> Iterator[DemoAPI]:
    """Serve whatever a test puts in `fault`."""
    with DemoAPI(DemoAccount(0)).serve() as api:
        yield api


def answer(api: DemoAPI, body: Any) -> None:
    """Answer each query with that body; a page says that it is at the offset asked for."""

    def fault(query: dict[str, str]) -> Reply:
        if isinstance(body, dict) and isinstance(body.get("pagination"), dict):
            pagination = {"offset": int(query["offset"])} | body["pagination"]
            return Reply(200, body | {"pagination": pagination})
        return Reply(200, body)

    api.requests.clear()
    api.fault = fault


@given(body=PAGES | VALUES)
@settings(max_examples=80, suppress_health_check=QUIET)
def test_any_body_ends_in_rows_or_exit_code_4(api: DemoAPI, body: Any) -> None:
    """No body makes the reading fail in another way, or go on for ever."""
    answer(api, body)
    shelf = Shelf()
    try:
        shelf.run(api, page_size=3, max_connections=1, client=JobsClient(DEMO_KEY, api.url))
    except ResponseError as error:
        assert str(error).isprintable()  # noqa: PT017 - most bodies do not raise it
    else:
        usable = {str(job["id"]) for job in shelf.jobs.values()}
        listed = body.get("jobs", []) if isinstance(body, dict) else []
        assert len(usable) + len(shelf.rejected) <= len(listed)
        assert bool(listed) == bool(usable or shelf.rejected)
    assert len(api.requests) < MOST_REQUESTS


@pytest.mark.slow
@given(jobs=st.lists(JOBS, min_size=1, max_size=5))
@settings(max_examples=8, suppress_health_check=QUIET)
def test_any_jobs_are_loaded_or_rejected(api: DemoAPI, jobs: Any, tmp_path_factory: Any) -> None:
    """Whatever a job's fields hold, dlt writes it, or it is set aside, or the page is refused."""
    answer(api, {"jobs": jobs, "pagination": {"total": len(jobs)}})
    warehouse = Warehouse(tmp_path_factory.mktemp("bodies"))
    try:
        warehouse.load(api)
    except PipelineStepFailed as error:
        assert isinstance(explained(error), ResponseError)  # noqa: PT017 - most do not raise it
    else:
        assert warehouse.rows("jobs", "id") + warehouse.rows("rejected_jobs", "fingerprint")
