"""The app `pipelines/explore_jobs.py`: looked at in a browser, and run as a script."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import duckdb
import pytest
from helpers.figures import SQL_DATABASES
from helpers.script import Done, access, load_from, query, restart_dlt, started
from helpers.servers import EXPLORE_JOBS, chromium, explorer, running
from helpers.warehouse import Place
from playwright.sync_api import Page

from convertly_source.demo import DemoAccount, DemoAPI

pytestmark = pytest.mark.no_cover
Serve = Callable[..., DemoAPI]
Open = Callable[..., Page]
# What is compared of each list.
LISTS = {
    "Durations": ("job type", "jobs", "p50 seconds", "p95 seconds"),
    "Queue": ("id", "status", "progress", "created at"),
    "Formats": ("mime type", "files", "bytes in", "bytes out", "bytes saved"),
    "Slowest jobs": ("id", "duration seconds", "status"),
    "Failed jobs": ("id", "error message", "failed files"),
    "Removed jobs": ("id", "status", "job type"),
    "Runs": ("kind", "listed", "held", "removed", "open jobs"),
    "Results": ("value", "filename"),
}
HOSTILE = "<img src=x onerror=alert(1)> **b** [a](https://example.com/a.png) $x$ ' \" 100%s </td>"
SIZES = {"originalSize": 3 * 10**12, "finalSize": 10**12}
LISTED = """all => Object.fromEntries(all.map(table => {
    const [head, ...rows] = [...table.rows].map(row => [...row.cells].map(cell => cell.innerText))
    const named = rows.map(row => Object.fromEntries(row.map((text, at) => [head[at], text])))
    return [table.getAttribute('aria-label'), named] }))"""
LABELS = "all => all.map(one => one.getAttribute('aria-label'))"
TEXTS = """all => all.map(stat => [...stat.shadowRoot.querySelectorAll(':not(style)')]
    .filter(one => !one.children.length && one.textContent).map(one => one.textContent))"""
WIDER = """() => [...document.querySelectorAll('*')].filter(one =>
    one.scrollWidth > one.clientWidth + 1 && !one.closest('.jobs')
    && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX)
    || one === document.documentElement && one.scrollWidth > innerWidth).map(one => one.tagName)"""


@pytest.fixture
def browse(servers: Any) -> Iterator[Open]:
    """Open the app, or an address. No other host is contacted, and the console has no error."""
    with ExitStack() as stack:
        asked, wrong, addresses = set[str | None](), list[str](), list[str]()

        def open_page(url: str = "", width: int = 1280) -> Page:
            if not url and not addresses:
                addresses.append(stack.enter_context(explorer()))  # which the pages do not outlive
            page: Page = servers(chromium).new_page(viewport={"width": width, "height": 900})
            stack.callback(page.close)
            page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
            page.on("websocket", lambda socket: asked.add(urlsplit(socket.url).hostname))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(dialog.message))
            page.on("console", lambda line: wrong.extend([line.text] * (line.type == "error")))
            page.goto(url or addresses[0])
            return page

        yield open_page
    assert asked <= {"127.0.0.1", None}  # without a host: data in the page itself
    assert not wrong


def seen(page: Page) -> dict[str, Any]:
    """Return the figures of the page: the four on top, the bars, and the lists."""
    stats = page.locator("marimo-stat").evaluate_all(TEXTS)
    bars = page.locator("[aria-roledescription=bar]").evaluate_all(LABELS)
    figures = {"stats": [texts[1] for texts in stats if texts], "bars": sorted(bars)}
    found = page.locator("table[aria-label]").evaluate_all(LISTED)
    for name, columns in LISTS.items():
        rows = found.get(name, [])
        figures[name] = [[row.get(column, "-") for column in columns] for row in rows]
    return figures


def expected(where: str = "true", any_status: str = "true") -> dict[str, Any]:
    """Query the tables, not the views, for what the page is to show."""

    def ask(sql: str) -> list[Any]:
        with duckdb.connect("convertly.duckdb", read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'; USE convertly_data")
            return [list(row) for row in connection.execute(sql).fetchall()]

    listed = "id NOT IN (SELECT id FROM removed_jobs)"
    took = "(epoch(completed_at) - epoch(created_at))"
    files = f"jobs__results JOIN jobs ON jobs.id = job_id WHERE final_size IS NOT NULL AND {where}"
    sizes = ("original_size", "final_size", "original_size - final_size")
    weights = [
        f"""CASE WHEN sum({size}) >= 1e12 THEN format('{{:.1f}} TB', sum({size}) / 1e12)
        ELSE format('{{:.1f}} GB', sum({size}) / 1e9) END"""
        for size in sizes
    ]
    slowest = f"WHERE {where} AND completed_at IS NOT NULL ORDER BY {took} DESC, id LIMIT 10"
    [stats] = ask(
        f"""SELECT format('{{:,}}', count(*)), (
            SELECT format('{{:.1f}}%', 100 * count(*) FILTER (status = 'failed') / count(*))
            FROM jobs WHERE status IN ('completed', 'failed') AND {any_status}
        ), (count(*) FILTER (completed_at IS NULL AND {listed}))::TEXT,
        (SELECT if(count(*) = 0, '0 B', {weights[2]}) FROM {files}) FROM jobs WHERE {where}"""
    )
    days = ask(
        f"""SELECT strftime(created_at, '%b %d, %Y'), count(*), status
        FROM jobs WHERE {where} GROUP BY 1, 3"""
    )
    return {
        "stats": stats,
        "bars": sorted(f"day: {day}; jobs: {jobs}; status: {status}" for day, jobs, status in days),
        "Durations": ask(
            f"""SELECT job_type, count(*)::TEXT, rtrim(rtrim(quantile_cont({took}, 0.5)
            ::DECIMAL(9, 2)::TEXT, '0'), '.'), rtrim(rtrim(quantile_cont({took}, 0.95)
            ::DECIMAL(9, 2)::TEXT, '0'), '.') FROM jobs WHERE {where} GROUP BY 1 ORDER BY 1"""
        ),
        "Queue": ask(
            f"""SELECT id, status, progress::TEXT, strftime(created_at, '%Y-%m-%d %H:%M:%S')
            FROM jobs WHERE {where} AND completed_at IS NULL AND {listed}
            ORDER BY created_at LIMIT 20"""
        ),
        "Formats": ask(
            f"""SELECT mime_type, count(*)::TEXT, {", ".join(weights)} FROM {files}
            GROUP BY 1 ORDER BY sum(original_size) DESC"""
        ),
        "Slowest jobs": ask(f"SELECT id, round({took})::INT::TEXT, status FROM jobs {slowest}"),
        "Failed jobs": ask(
            f"""SELECT id, error_message, failed_files::TEXT FROM jobs
            WHERE {where} AND status = 'failed' ORDER BY created_at DESC LIMIT 20"""
        ),
        "Removed jobs": ask(
            f"""SELECT id, last_status, (SELECT job_type FROM jobs WHERE id = removed_jobs.id)
            FROM removed_jobs WHERE id IN (SELECT id FROM jobs WHERE {where})
            ORDER BY noticed_at DESC, id LIMIT 20"""
        ),
        "Runs": ask(
            """SELECT kind, COLUMNS('listed|held|^removed|open_jobs')::TEXT FROM runs
            ORDER BY started_at DESC"""
        ),
        "Results": ask(
            f"""SELECT coalesce(value, '-'), coalesce(filename, '-') FROM jobs__results
            WHERE job_id = (SELECT id FROM jobs {slowest[:-2]}1) ORDER BY _dlt_list_idx"""
        ),
    }


def assert_shows(page: Page, figures: dict[str, Any]) -> None:
    """Wait for the page to show these figures: it fills section by section."""
    deadline = time.monotonic() + 30
    while seen(page) != figures and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert seen(page) == figures


def choose(page: Page, label: str, value: str) -> None:
    """Set a filter."""
    page.get_by_label(label, exact=True).select_option(value)


@pytest.mark.slow
def test_the_page_has_the_figures_of_the_tables(serve: Serve, browse: Open) -> None:
    """Whole, and by type, status, period and job; on a phone too, which scrolls down only."""
    account = DemoAccount(400)
    file = {"filename": "a.pdf", "mimeType": "application/pdf"}
    account.jobs[7]["results"] = {"files": [file | SIZES]}
    api = serve(account)
    load_from(api)
    for job in account.unfinished()[:4]:
        account.cancel(job)
    load_from(api)
    of_type, in_period = "job_type = 'convert'", "created_at >= '2026-05-04'"
    for width in (1280, 390):
        page = browse(width=width)
        assert_shows(page, expected())
        page.get_by_text("396 jobs listed, 396 held.").wait_for()
        assert not page.evaluate(WIDER)
        choose(page, "Job type", "convert")
        choose(page, "Status", "failed")
        assert_shows(page, expected(f"{of_type} AND status = 'failed'", of_type))
    choose(page, "Job type", "all")
    choose(page, "Status", "all")
    page.locator("[aria-label^='day, Start Date']").click()
    page.keyboard.type("04")
    assert_shows(page, expected(in_period, in_period))
    page.get_by_label("Job", exact=True).fill(account.jobs[7]["id"])
    page.keyboard.press("Enter")
    assert_shows(page, expected(in_period, in_period) | {"Results": [["-", "a.pdf"]]})


@pytest.mark.slow
def test_texts_of_the_api_are_shown_as_plain_text(serve: Serve, browse: Open) -> None:
    """HTML, Markdown and links in a text of the API are shown as they are, and do nothing."""
    account = DemoAccount(30)
    link = "https://example.com/a.png"
    job = account.create(job_type=HOSTILE)
    account.finish(job, has_failed=True)
    file = {"filename": HOSTILE, "mimeType": HOSTILE, **SIZES}
    job["error_message"] = HOSTILE
    job["results"] = {"files": [file | {"downloadUrl": link}, link]}
    load_from(serve(account))
    page = browse()
    choose(page, "Job type", HOSTILE)
    assert_shows(page, expected("job_type LIKE '<img%'", "job_type LIKE '<img%'"))
    figures = seen(page)
    assert figures["Failed jobs"] == [[job["id"], HOSTILE, str(job["failed_files"])]]
    assert figures["Results"] == [["-", HOSTILE], [link, "-"]]
    assert figures["Formats"][0][0] == figures["Durations"][0][0] == HOSTILE
    made = page.locator("img[src=x], a[href*='example.com'], img[src*='example.com'], strong")
    assert made.count() == 0


@pytest.mark.slow
def test_the_page_names_what_is_missing(serve: Serve, browse: Open) -> None:
    """Without a file, and with empty tables, the page tells which command fills it."""
    for text in ("The warehouse is missing", "There are no jobs yet."):
        page = browse()
        page.get_by_text(text).wait_for()
        page.get_by_text("To load your account: convertly-source load").wait_for()
        page.get_by_text("convertly-source load --demo").wait_for()
        assert not any(seen(page).values())
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert not page.evaluate(WIDER)
        load_from(serve(DemoAccount(0)))


@pytest.mark.slow
def test_an_open_page_does_not_stop_a_load(serve: Serve, browse: Open) -> None:
    """A load goes through while a page is open; the page shows it when it is loaded again."""
    api = serve(DemoAccount(30))
    load_from(api)
    page = browse()
    assert_shows(page, expected())
    api.account.finish(api.account.create())
    done = load_from(api)
    assert done.returncode == 0, done.stderr
    page.reload()
    assert_shows(page, expected())
    assert seen(page)["stats"][0] == "31"
    page.locator("[aria-label=Results]").wait_for()  # the last query is over
    with duckdb.connect("convertly.duckdb"):  # as a load does
        page.reload()
        page.get_by_text("or a load is writing to it").wait_for()


def run_script(*arguments: str, **environment: str) -> Done:
    """Run the app as a script, in this process."""
    output, errors, code = StringIO(), StringIO(), 0
    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", [str(EXPLORE_JOBS), *arguments]),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        restart_dlt()
        try:
            runpy.run_path(str(EXPLORE_JOBS), run_name="__main__")
        except SystemExit as ended:
            code = 1
            print(ended.code, file=sys.stderr)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


@SQL_DATABASES
def test_it_is_a_script(serve: Serve, place: Place) -> None:
    """Run as a script it prints the figures; the views need not be there."""
    api = serve(DemoAccount(200))
    load_from(api, *place.arguments, **place.settings)
    done = run_script(*place.arguments, **place.settings)
    assert done.returncode == 0, done.stderr
    jobs = api.account.jobs
    failed = sum(job["status"] == "failed" for job in jobs)
    ended = len(jobs) - len(api.account.unfinished())
    first, second, third, *_ = done.stdout.splitlines()
    assert first.startswith("Jobs: 200 ")
    assert second.startswith(f"Failure rate: {failed / ended:.1%} ")
    assert third.startswith(f"Open: {len(jobs) - ended} ")
    for job_type in {job["job_type"] for job in jobs}:
        count = sum(job["job_type"] == job_type for job in jobs)
        assert f"\n{job_type}: {count} jobs, p50 " in done.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--dataset=mine", "Nothing is loaded there yet."),
        ("--dataset=mine", "convertly-source load --dataset=mine --demo"),
        ("--destination=nowhere", "The destination is not known, or has no settings."),
        ("--destination=postgres", "Missing 1 field(s) in configuration"),
    ],
)
def test_as_a_script_it_names_what_is_missing(argument: str, message: str) -> None:
    """A script that finds nothing ends with 1, what is missing, and the command that brings it."""
    duckdb.connect("convertly.duckdb").close()
    done = run_script(argument)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_open_loads_and_opens_it(
    serve: Serve, browse: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--open` opens a browser on the app, after the load; it runs until it is ended.

    The summary of a load names the command.
    """
    told = tmp_path / "told"
    opener = tmp_path / "bin" / "xdg-open"  # what a desktop opens addresses with
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" > {told}.part; mv {told}.part {told}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{opener.parent}:{os.environ['PATH']}")
    api = serve(DemoAccount(30))
    process = started("load", "--open", "--dataset", "mine", **access(api))
    with running(process, told.read_text):
        address = told.read_text().strip().replace("localhost", "127.0.0.1")
        page = browse(address)
        page.get_by_text("mine of duckdb:///convertly.duckdb").wait_for()
        page.get_by_text("30", exact=True).first.wait_for()
        page.locator("[aria-label=Results]").wait_for()
        page.wait_for_load_state("networkidle")
        page.close()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert "Loaded 30 jobs" in out
    assert "Look at them: convertly-source explore --dataset=mine" in out.splitlines()
    assert len(query("FROM mine.job_facts")) == 30
