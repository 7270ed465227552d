"""One load of an account: what is in the tables, what is reported, and what it returns."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.lists import Order, in_no_order
from helpers.script import content, listed, query
from helpers.warehouse import load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI, Reply, newest_first
from convertly_source.errors import ResponseError, SettingsError, explained
from convertly_source.loading import LoadResult, Target
from convertly_source.loading.load import load_in_chunks
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]
TARGET = Target()
REQUESTS_OF_A_COUNT = 4  # of a load that finds more jobs than are held, until it compares them


def load_all_but_one(api: DemoAPI) -> None:
    """Load an account in which one job then appears too late for ordinary runs."""
    late = api.account.jobs.pop(50)
    load_into(TARGET, api)
    api.account.jobs.insert(50, late)
    api.requests.clear()


def test_the_result_tells_what_was_loaded(serve: Serve) -> None:
    """It has the rows of each table, the number of new jobs, and where they are."""
    api = serve(DemoAccount(120))
    first = load_into(TARGET, api)
    assert {*first.rows} >= {*TABLES}
    assert (first.rows["jobs"], first.new_jobs) == (120, 120)
    assert (
        first.rows["jobs__results"]
        == query("SELECT count(*) FROM convertly_data.jobs__results")[0][0]
    )
    assert first.place == f"convertly_data of duckdb:///{Path.cwd()}/convertly.duckdb"
    assert first.dataset == "convertly_data"
    api.account.finish(api.account.unfinished()[0])
    api.account.create()
    second = load_into(TARGET, api)
    assert (second.rows["jobs"], second.new_jobs) == (2, 1)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_rows_are_counted_while_they_are_loaded(serve: Serve) -> None:
    """A caller's counter has the rows of what was loaded before an error."""
    rows = Counter[str]()
    api = serve(DemoAccount(600))
    api.fault = lambda _: Reply(418, {"error": "No."}) if len(api.requests) > 5 else None
    with pytest.raises(PipelineStepFailed) as failed:
        load_into(TARGET, api, {"max_connections": 1}, pages_per_chunk=1, rows=rows)
    assert isinstance(explained(failed.value), ResponseError)
    assert 0 < rows["jobs"] == len(content())


def test_a_quiet_second_load_changes_nothing(serve: Serve) -> None:
    """Loaded again, an account that stood still leaves each row as it was."""
    api = serve(DemoAccount(120))
    load_into(TARGET, api)
    before = query("FROM convertly_data.jobs"), query("FROM convertly_data.jobs__results")
    result = load_into(TARGET, api)
    assert (result.rows["jobs"], result.rows["jobs__results"], result.new_jobs) == (0, 0, 0)
    assert before == (query("FROM convertly_data.jobs"), query("FROM convertly_data.jobs__results"))


@pytest.mark.slow
def test_a_quiet_first_day_has_the_results_table(serve: Serve) -> None:
    """Without any result `jobs__results` is there, empty, with all columns, and is filled later."""
    api = serve(DemoAccount(0))
    job = api.account.create()
    for rows in (0, 1):
        load_into(TARGET, api)
        columns = query("SELECT column_name FROM (DESCRIBE convertly_data.jobs__results)")
        assert {name for (name,) in columns} >= {*TABLES["jobs__results"][1]}
        assert len(query("FROM convertly_data.jobs__results")) == rows
        api.account.finish(job)
        job["results"] = ["https://files.convertly.sh/a.webp?token=1"]
    values = query("SELECT job_id, value FROM convertly_data.jobs__results")
    assert values == [(job["id"], "https://files.convertly.sh/a.webp")]


def test_an_empty_account_gives_empty_tables(serve: Serve) -> None:
    """An account without jobs gives both tables, and no error; nor is anything found missing."""
    api, sentences = serve(DemoAccount(0)), list[str]()
    for _ in range(2):
        result = load_into(TARGET, api, report=sentences.append)
        assert (result.rows["jobs"], result.rows["jobs__results"], result.new_jobs) == (0, 0, 0)
    assert not sentences
    assert query("SELECT count(*) FROM convertly_data.jobs") == [(0,)]
    assert query("SELECT count(*) FROM convertly_data.jobs__results") == [(0,)]


@pytest.mark.covers
@pytest.mark.slow
def test_new_fields_are_reported_and_loaded(serve: Serve) -> None:
    """A new field, one that disappears, another type: all is loaded, and the new is reported."""
    api = serve(DemoAccount(30))
    sentences = list[str]()
    load_into(TARGET, api, report=sentences.append)
    assert not sentences
    before = query("SELECT id, job_type, total_files FROM convertly_data.jobs ORDER BY id")
    one, two = (api.account.create() for _ in range(2))
    one |= {"priority": 3, "owner": {"name": "Ann"}, "tags": ["a"]}
    del one["job_type"]
    two |= {"priority": "high", "total_files": "many"}
    load_into(TARGET, api, report=sentences.append)
    columns = [
        "jobs.owner (json)",
        "jobs.priority (double)",
        "jobs.priority__v_text (text)",
        "jobs.tags (json)",
        "jobs.total_files__v_text (text)",
    ]
    assert sentences == [f"New in the API: {', '.join(columns)}."]
    ids = [job["id"] for job in (one, two)]
    new = query(
        "SELECT job_type, total_files, total_files__v_text, priority, priority__v_text,"
        " owner->>'name'"
        f" FROM convertly_data.jobs WHERE id IN {tuple(ids)} ORDER BY id = '{two['id']}'"
    )
    assert new == [
        (None, one["total_files"], None, 3, None, "Ann"),
        (two["job_type"], None, "many", None, "high", None),
    ]
    old = f"SELECT id, job_type, total_files FROM convertly_data.jobs WHERE id NOT IN {tuple(ids)}"
    assert query(f"{old} ORDER BY id") == before
    load_into(TARGET, api, report=sentences.append)
    assert len(sentences) == 1


@pytest.mark.slow
def test_the_dataset_holds_the_documented_columns_only(serve: Serve) -> None:
    """There are the documented tables and columns and dlt's own, and no second copy of a load."""
    api = serve(DemoAccount(300))
    for _ in range(2):
        del api.account.create()["id"]
        api.account.cancel(api.account.unfinished()[0])
        load_into(TARGET, api)
    found = query(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " WHERE column_name NOT LIKE '\\_dlt\\_%' ESCAPE '\\'"
        " AND table_name NOT LIKE '\\_dlt\\_%' ESCAPE '\\'"
    )
    main = {(table, column) for schema, table, column in found if schema == "convertly_data"}
    documented = {(table, name) for table, (_, columns) in TABLES.items() for name in columns}
    assert main == documented | {("jobs__results", "id")}  # which the demo account's files have
    assert {schema for schema, *_ in found} <= {"convertly_data", "convertly_data_staging"}
    for table in {table for schema, table, _ in found if schema.endswith("_staging")}:
        assert query(f"SELECT count(*) FROM convertly_data_staging.{table}") == [(0,)]
    assert all(name == name.lower() and name.isidentifier() for row in found for name in row)


def test_a_rejected_job_is_counted_once(serve: Serve) -> None:
    """Jobs that can't be stored are counted by the first load that finds them."""
    api = serve(DemoAccount(20))
    del api.account.jobs[5]["id"]
    assert load_into(TARGET, api).rows["rejected_jobs"] == 1
    reasons = query("SELECT reason, raw->>'$.job_type' FROM convertly_data.rejected_jobs")
    assert reasons == [("no usable id", api.account.jobs[5]["job_type"])]
    assert load_into(TARGET, api).rows["rejected_jobs"] == 0


def test_a_full_refresh_starts_over(serve: Serve) -> None:
    """Everything is loaded again, and what the account no longer has is deleted."""
    api = serve(DemoAccount(150))
    load_into(TARGET, api)
    api.account.jobs = api.account.jobs[:100]
    result = load_into(TARGET, api, full_refresh=True)
    assert (result.rows["jobs"], result.new_jobs) == (100, 0)
    assert content() == listed(api.account)
    assert load_into(TARGET, api).rows["jobs"] == 0


@pytest.mark.covers
@pytest.mark.slow
def test_a_load_of_a_part_tells_what_it_leaves_out(serve: Serve) -> None:
    """Where all would have to be read again, a load with a start date says that it doesn't."""
    api = serve(DemoAccount(120))
    load_into(TARGET, api)
    query("ALTER TABLE convertly_data.jobs DROP COLUMN progress")
    sentences = list[str]()
    load_into(TARGET, api, {"start_date": "2026-05-03"}, report=sentences.append)
    assert "load once without a range and a status" in sentences[-1]
    assert content() == listed(api.account)
    load_into(TARGET, api)
    assert query("SELECT count(progress) FROM convertly_data.jobs") == [(120,)]


@pytest.mark.covers
@pytest.mark.slow
def test_an_account_replaces_the_demo(serve: Serve) -> None:
    """After a demo the first load of a real host starts over; a demo never replaces an account."""
    demo = serve(DemoAccount(50))
    load_into(TARGET, demo)
    account = serve(DemoAccount(20, seed=1))
    url = account.url.replace("127.0.0.1", "localhost")
    sentences = list[str]()
    load_into(TARGET, account, {"base_url": url}, report=sentences.append)
    assert sentences == ["Replacing the demo data with your account."]
    assert content() == listed(account.account)
    with pytest.raises(
        SettingsError, match=r"holds the account of localhost, not that of 127"
    ) as no:
        load_into(TARGET, demo)
    assert no.value.setting == "dataset"
    assert content() == listed(account.account)
    load_into(Target(dataset="demo"), demo)


@pytest.mark.slow
def test_datasets_and_files_do_not_share_a_cursor(serve: Serve, tmp_path: Path) -> None:
    """The state is the destination's: another dataset, or a deleted file, is loaded whole."""
    api = serve(DemoAccount(120))
    other = Target(dataset="other")
    load_into(TARGET, api)
    load_into(other, api)
    for _ in range(2):
        api.account.create()
        load_into(TARGET, api)
    load_into(other, api)
    assert content() == content("other") == listed(api.account)
    (tmp_path / "convertly.duckdb").unlink()
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_each_folder_has_a_file_of_its_own(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is that of the current folder, wherever an earlier load was run."""
    api = serve(DemoAccount(20))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert load_into(TARGET, api).new_jobs == 20
        assert content() == listed(api.account)


@pytest.mark.covers
@pytest.mark.slow
def test_chunks_are_loads_and_cost_no_requests(serve: Serve) -> None:
    """Chunks of pages are loads of their own, each a prefix of history, for no further request."""
    api = serve(DemoAccount(1500))
    assert load_into(TARGET, api, pages_per_chunk=4).new_jobs == 1500
    assert len(api.requests) <= -(-1500 // 98) + 3
    bounds = query(
        "SELECT min(created_at), max(created_at) FROM convertly_data.jobs"
        " GROUP BY _dlt_load_id ORDER BY 1"
    )
    assert len(bounds) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(bounds))
    assert content() == listed(api.account)
    load_into(TARGET, api, pages_per_chunk=0, full_refresh=True)
    loads = query("SELECT count(DISTINCT _dlt_load_id) FROM convertly_data.jobs")
    assert loads == [(1,)]


@pytest.mark.slow
def test_a_window_in_chunks_comes_to_its_end(serve: Serve) -> None:
    """A window that is loaded in chunks continues where the chunk before it ended."""
    api = serve(DemoAccount(1500))
    end = api.account.jobs[1200]["created_at"]
    assert load_into(TARGET, api, {"end_date": end}, pages_per_chunk=3).new_jobs == 1200


@pytest.mark.covers
@pytest.mark.slow
def test_a_job_that_another_load_saw_reopened_is_followed(serve: Serve) -> None:
    """What a load with a status has written counts, though others know an end of that job."""
    api = serve(DemoAccount(30))
    job = api.account.create()
    api.account.finish(job)
    load_into(TARGET, api)
    ended = dict(job)
    job.update(status="processing")
    assert load_into(TARGET, api, {"status": "processing"}).rows["jobs"]
    job.update(ended)
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("first", [newest_first, in_no_order])
def test_left_out_jobs_of_a_list_in_no_order_are_read(serve: Serve, first: Order) -> None:
    """Comparing needs an order: without one, a load without a start date reads all jobs."""
    api = serve(DemoAPI(DemoAccount(300), order=first))
    start = api.account.jobs[200]["created_at"]
    assert load_into(TARGET, api, {"start_date": start}).new_jobs == 100
    api.order = in_no_order
    assert load_into(TARGET, api).new_jobs == 200
    assert content() == listed(api.account)
    assert query("SELECT kind FROM convertly_data.runs") == [("load",), ("load",)]
    assert load_into(TARGET, api).rows["runs"] == 1


@pytest.mark.covers
@pytest.mark.slow
def test_late_jobs_of_a_list_that_loses_its_order_are_read(serve: Serve) -> None:
    """The load that counts them reads all, if it can't compare by positions any more."""
    api = serve(DemoAccount(300))
    load_all_but_one(api)

    def lose_the_order(_: DemoAccount) -> None:
        if len(api.requests) > REQUESTS_OF_A_COUNT:
            api.order = in_no_order

    api.before_answer = lose_the_order
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.covers
@pytest.mark.slow
def test_a_comparison_that_fails_is_left_to_the_next_load(serve: Serve) -> None:
    """A load that counts late jobs, and then can't compare, fails; they are not forgotten."""
    api = serve(DemoAccount(300))
    load_all_but_one(api)
    page = api.page

    def break_off(limit: int, offset: int, status: str | None) -> dict[str, Any]:
        return page(limit, offset, status) if len(api.requests) <= REQUESTS_OF_A_COUNT else {}

    api.page = break_off  # type: ignore[method-assign]
    with pytest.raises(PipelineStepFailed) as failed:
        load_into(TARGET, api)
    assert isinstance(explained(failed.value), ResponseError)
    api.page = page  # type: ignore[method-assign]
    load_into(TARGET, api)
    assert content() == listed(api.account)


@pytest.mark.slow
def test_a_chunk_that_was_loaded_is_not_read_again(serve: Serve) -> None:
    """A load that stops after some chunks is continued by the next one, in another process too."""
    api = serve(DemoAccount(1500))
    pipeline = TARGET.pipeline()
    chunks = load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url), 3)
    for _ in range(2):
        next(chunks)
    del chunks
    loaded = len(content())
    assert 300 <= loaded < 1500
    api.requests.clear()
    load_into(TARGET, api)
    assert content() == listed(api.account)
    assert len(api.requests) <= -(-(1500 - loaded) // 98) + 2 * 5 + 4


def test_no_other_destination_is_known(serve: Serve) -> None:
    """A destination that dlt does not have is refused, with a list of those that it has."""
    api = serve(DemoAccount(5))
    with pytest.raises(SettingsError, match="Invalid destination 'nowhere'") as refused:
        load_into(Target("nowhere"), api)
    assert (refused.value.setting, "/destinations" in refused.value.remedy) == ("destination", True)
    assert not api.requests


@pytest.mark.covers
@pytest.mark.slow
def test_a_lake_counts_no_new_jobs(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake can't be counted by SQL, so the number of new jobs is not known there.

    Nor has it a staging dataset, which `.dlt/config.toml` tells dlt to truncate: a full refresh
    works though dlt has made an empty one.
    """
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", f"file://{tmp_path}/lake")
    api = serve(DemoAccount(20))
    result = load_into(Target("filesystem"), api, {"table_format": "delta"})
    assert isinstance(result, LoadResult)
    assert (result.rows["jobs"], result.new_jobs) == (20, None)
    assert (tmp_path / "lake" / "convertly_data_staging").is_dir()
    again = load_into(Target("filesystem"), api, {"table_format": "delta"}, full_refresh=True)
    assert (again.rows["jobs"], again.new_jobs) == (20, None)
