"""The table `runs`: each run that came to its end proves how much of the account is loaded."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.script import load, query
from helpers.warehouse import Warehouse, load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.loading import Target
from convertly_source.loading.load import load_in_chunks
from convertly_source.loading.target import restore

Serve = Callable[..., DemoAPI]
TARGET = Target()


def runs(columns: str) -> list[tuple[Any, ...]]:
    """Return what the table says, run by run."""
    return query(f"SELECT {columns} FROM convertly_data.runs ORDER BY started_at")


def test_each_run_has_a_row(serve: Serve) -> None:
    """A first load, a quiet run and one with changes each say what they found and loaded."""
    api = serve(DemoAccount(250))
    account = api.account
    load_into(TARGET, api)
    results = query("SELECT count(*) FROM convertly_data.jobs__results")[0][0]
    was_open = len(account.unfinished())
    first = len(api.requests)
    load_into(TARGET, api)
    quiet = len(api.requests) - first
    account.cancel(account.unfinished()[0])
    account.finish(account.unfinished()[0])
    del account.create()["id"]
    load_into(TARGET, api)
    last = len(api.requests) - first - quiet
    columns = "kind, listed, held, jobs_loaded, rejected, removed, open_jobs, requests"
    assert runs(columns) == [
        ("load", 250, 250, 250, 0, 0, was_open, first),
        ("load", 250, 250, 0, 0, 0, was_open, quiet),
        ("load", 250, 250, 1, 1, 1, was_open - 2, last),
    ]
    assert runs("results_loaded")[:2] == [(results,), (0,)]
    assert query("SELECT count(DISTINCT run_id) FROM convertly_data.runs") == [(3,)]
    assert query("SELECT count(*) FROM convertly_data.runs WHERE finished_at < started_at") == [
        (0,)
    ]


def test_a_run_in_chunks_has_one_row(serve: Serve) -> None:
    """A run that is loaded in many packages is written once, with all that it has loaded."""
    api = serve(DemoAccount(420))
    load_into(TARGET, api, pages_per_chunk=1)
    assert runs("listed, held, jobs_loaded") == [(420, 420, 420)]


@pytest.mark.slow
def test_a_killed_run_has_none(serve: Serve, tmp_path: Path) -> None:
    """A run that does not come to its end leaves no row; the next one has its own."""
    api = serve(DemoAccount(420))
    pipeline = TARGET.pipeline(tmp_path)
    restore(pipeline)
    next(load_in_chunks(pipeline, convertly_source(DEMO_KEY, api.url), 1))
    assert runs("kind") == []
    load_into(TARGET, api)
    assert runs("listed, held") == [(420, 420)]


@pytest.mark.slow
def test_jobs_that_are_created_meanwhile_are_not_listed(serve: Serve) -> None:
    """The count is of the list as it was when the run began, and equal to it at rest."""
    api = serve(DemoAccount(300))

    def live(account: DemoAccount) -> None:
        account.create(timedelta(seconds=1))

    api.before_answer = live
    load_into(TARGET, api)
    api.before_answer = lambda _: None
    load_into(TARGET, api)
    (listed, held), last = runs("listed, held")
    assert 300 < listed <= held
    assert last == (len(api.account.jobs), len(api.account.jobs))


@pytest.mark.slow
def test_a_late_job_is_not_held_until_it_is_loaded(warehouse: Warehouse, serve: Serve) -> None:
    """A run that sees jobs behind its cursor, still to be loaded, does not count them."""
    api = serve(DemoAccount(250))
    for _ in range(3):
        warehouse.load(api)
        if len(api.account.jobs) == 250:
            late = api.account.create()
            late["created_at"] = api.account.jobs[100]["created_at"]
    rows = warehouse.rows("runs", "started_at", "listed", "held")
    assert [counts for _, *counts in sorted(rows)] == [[250, 250], [251, 250], [251, 251]]


@pytest.mark.slow
def test_a_late_job_is_loaded_by_the_load_that_sees_it(serve: Serve) -> None:
    """A load that notices one verifies at once, which leaves a row of its own."""
    api = serve(DemoAccount(250))
    load_into(TARGET, api)
    api.account.create()["created_at"] = api.account.jobs[100]["created_at"]
    result = load_into(TARGET, api)
    assert (result.listed, result.held) == (251, 251)
    assert runs("kind, listed, held")[1:] == [("load", 251, 250), ("verify", 251, 251)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"status": "completed"}, "load"),
        ({"start_date": "2026-05-02"}, "load"),
        ({"end_date": "2026-05-05"}, "window"),
    ],
    ids=["status", "start", "window"],
)
def test_a_part_of_the_account_is_not_counted(
    serve: Serve, settings: dict[str, str], kind: str
) -> None:
    """Of a part of the account, `runs` doesn't say how many of the listed jobs are held."""
    load_into(TARGET, serve(DemoAccount(150)), settings)
    assert runs("kind, listed, held") == [(kind, 150, None)]


@pytest.mark.slow
def test_a_refresh_says_so_and_keeps_the_earlier_rows(serve: Serve) -> None:
    """A full refresh deletes no proof of an earlier run."""
    api = serve(DemoAccount(150))
    load_into(TARGET, api)
    load_into(TARGET, api, full_refresh=True)
    load_into(TARGET, api)
    assert runs("kind, held, jobs_loaded") == [
        ("load", 150, 150),
        ("refresh", 150, 150),
        ("load", 150, 0),
    ]


@pytest.mark.slow
def test_the_command_line_prints_both_numbers(serve: Serve) -> None:
    """A person sees that all that is listed is held; of a part there is nothing to compare."""
    api = serve(DemoAccount(1200))
    access = {"CONVERTLY_API_KEY": DEMO_KEY, "CONVERTLY_BASE_URL": api.url}
    assert "\n1,200 listed, 1,200 held.\n" in load(**access).stdout
    assert " held." not in load("--dataset", "failed", "--status", "failed", **access).stdout


def test_runs_need_not_be_selected(warehouse: Warehouse, serve: Serve) -> None:
    """Whoever selects `jobs` alone gets no other table."""
    source = convertly_source(DEMO_KEY, serve(DemoAccount(20)).url)
    warehouse.pipeline.run(source.with_resources("jobs"))
    tables = warehouse.pipeline.default_schema.data_table_names()
    assert set(tables) == {"jobs", "jobs__results"}
