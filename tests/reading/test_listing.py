"""Decisions of the reading: which pages overlap, when a group is complete; odd jobs and ids."""

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

import pytest
from helpers.lists import (
    Clamping,
    OneTimeEach,
    Planned,
    in_no_order,
    oldest_first,
    restless,
    shuffled,
)
from helpers.model import Direct, Shelf
from helpers.warehouse import Warehouse
from hypothesis import given
from hypothesis import strategies as st

from convertly_source.api.client import JobsClient, JobsPage
from convertly_source.demo import DEMO_START, DemoAccount, DemoAPI, Reply, newest_first
from convertly_source.errors import ResponseError, UnavailableError
from convertly_source.reading.job import BEGINNING, END, TICK, ListedJob, PositionedJob
from convertly_source.reading.listing import Group, Listing
from convertly_source.reading.pages import Page, Pages
from convertly_source.reading.run import IncrementalRun, new_state

Serve = Callable[..., DemoAPI]
UTC = timezone.utc


def time_of(minutes: int) -> datetime:
    """Return a time, in minutes after the start."""
    return DEMO_START + timedelta(minutes=minutes)


def job(number: int, minutes: int) -> PositionedJob:
    """Make a job that was created then."""
    created_at = time_of(minutes)
    return PositionedJob(created_at, str(number), number, ListedJob({}, str(number), created_at))


def cut(jobs: list[PositionedJob], position: int, size: int) -> Page:
    """Cut a page out of a list that is sorted oldest first."""
    start, end = max(0, position), min(len(jobs), position + size)
    return Page(jobs[start:end], start, start == 0, end == len(jobs))


def listing(api: DemoAPI, page_size: int = 100, max_connections: int = 4) -> Listing:
    """Look at an account, without HTTP."""
    return Listing(cast("JobsClient", Direct(api)), page_size, max_connections)


LISTS = st.lists(st.integers(0, 20), min_size=1, max_size=40).map(
    lambda times: [job(number, minutes) for number, minutes in enumerate(sorted(times))]
)


@given(jobs=LISTS, size=st.integers(1, 9), position=st.integers(0, 39), minutes=st.integers(0, 20))
def test_a_page_tells_how_many_jobs_are_older(
    jobs: list[PositionedJob], size: int, position: int, minutes: int
) -> None:
    """A page that begins before a time knows how many jobs of the whole list are older."""
    page = cut(jobs, min(position, len(jobs) - 1), size)
    moment = time_of(minutes)
    if page.begins_before(moment) and (page.is_newest or page.youngest >= moment):
        assert page.count_before(moment) == sum(job.created_at < moment for job in jobs)


@given(jobs=LISTS, size=st.integers(3, 9), position=st.integers(0, 39), minutes=st.integers(0, 20))
def test_a_page_that_overlaps_leaves_no_job_out(
    jobs: list[PositionedJob], size: int, position: int, minutes: int
) -> None:
    """A page with a job older than the watermark has every job from there to its youngest."""
    page = cut(jobs, min(position, len(jobs) - 1), size)
    watermark = time_of(minutes)
    if page.overlaps(watermark):
        due = {job.key for job in jobs if watermark <= job.created_at < page.youngest}
        assert due <= {job.key for job in page.jobs}
        assert page.is_newest or page.youngest > watermark


@given(
    times=st.lists(st.integers(0, 12), max_size=40).map(sorted),
    size=st.integers(3, 9),
    since=st.integers(0, 12),
    is_oldest_first=st.booleans(),
)
def test_a_read_at_rest_yields_each_job_once_in_order(
    times: list[int], size: int, since: int, *, is_oldest_first: bool
) -> None:
    """At rest, every job from a time on comes once, oldest first, in either order of the list."""
    account = DemoAccount(0)
    for before, after in zip([0, *times], times, strict=False):
        account.create(timedelta(minutes=after - before))
    order = oldest_first if is_oldest_first else newest_first
    found = listing(DemoAPI(account, order=order), size)
    page = found.search(time_of(since))
    read = [job for jobs in found.read(time_of(since), END, page) for job in jobs]
    expected = [job["id"] for job in account.jobs if ListedJob.parse(job).created_at]
    expected = expected[sum(minutes < since for minutes in times) :]
    assert sorted(job.key for job in read) == sorted(expected)
    assert [job.created_at for job in read] == sorted(job.created_at for job in read)
    assert found.watermark == END


@pytest.mark.parametrize("order", [newest_first, oldest_first])
def test_any_time_is_found_in_few_requests(order: Any) -> None:
    """A search of 10,000 jobs takes twice the logarithm of its pages, wherever the time is."""
    api = DemoAPI(DemoAccount(10_000, every=timedelta(minutes=1)), order=order)
    found = listing(api)
    for number in (0, 1, 99, 100, 5000, 9899, 9999):
        api.requests.clear()
        created_at = ListedJob.parse(api.account.jobs[number]).created_at or BEGINNING
        page = found.search(created_at)
        assert page.count_before(created_at) == number
        assert len(api.requests) <= 15


# Groups.


def group_of(*keys: str) -> list[PositionedJob]:
    """Make jobs of one time."""
    return [job(0, 5)._replace(key=key) for key in keys]


def page_of(jobs: list[PositionedJob], position: int, *, is_newest: bool = True) -> Page:
    """Make a page of them, after an older job."""
    return Page([job(99, 1), *jobs], position - 1, is_oldest=False, is_newest=is_newest)


def test_a_group_is_complete_when_all_were_seen() -> None:
    """As many jobs as positions are all of them, if the group ends where it did before."""
    group = Group(time_of(5), set(), 13)
    group.begin(10, 100)
    assert len(group.take(page_of(group_of("a", "b"), 10, is_newest=False))) == 2
    last = Page(group_of("c"), 12, is_oldest=False, is_newest=True)
    assert [job.key for job in group.take(last)] == ["c"]
    assert group.is_complete(last, 100, is_static=True)


def test_a_group_that_moves_is_complete_when_seen_again() -> None:
    """Where the group ends elsewhere each time, all that were seen must be seen once more."""
    group = Group(time_of(5), set(), 14)
    for keys, is_complete in (("abc", False), ("abcd", True)):
        page = page_of(group_of(*keys), 10)
        group.begin(10, 100)
        group.take(page)
        assert group.is_complete(page, 100, is_static=True) is is_complete


@pytest.mark.parametrize(("end", "is_static"), [(None, True), (13, False)])
def test_a_group_that_may_grow_must_be_seen_again(end: int | None, *, is_static: bool) -> None:
    """A new group, or any in a list that moves, may get as many jobs as it loses."""
    group = Group(time_of(5), set(), end)
    for keys, is_complete in (("abx", False), ("abc", False), ("abc", True)):
        page = page_of(group_of(*keys), 10)
        group.begin(10, 100)
        group.take(page)
        assert group.is_complete(page, 100, is_static=is_static) is is_complete


def test_a_job_that_vanished_does_not_stand_in_for_another() -> None:
    """A job that was seen and has gone does not make up for one that was not seen."""
    group = Group(time_of(5), set(), 14)
    seen, there = page_of(group_of("a", "b", "gone"), 10), page_of(group_of("a", "b", "c"), 10)
    for page, is_complete in ((seen, False), (there, True)):
        group.begin(10, 100)
        group.take(page)
        assert group.is_complete(page, 100, is_static=True) is is_complete


def test_a_job_that_vanishes_in_a_later_round_is_not_counted() -> None:
    """What was seen in an earlier round may have gone since: the group ended after that then."""
    group = Group(time_of(5), set(), 14)
    for keys, end in (("a", "gone"), 14), (("a",), 13), (("a", "b"), 13):
        last = Page(group_of("a"), end - 1, is_oldest=False, is_newest=True)
        group.begin(10, 100)
        group.take(page_of(group_of(*keys), 10))
        group.take(last)
        assert not group.is_complete(last, 100, is_static=True)


def test_a_group_is_counted_anew_when_older_jobs_go() -> None:
    """Positions that shift while they are counted say nothing."""
    group, page = Group(time_of(5), set(), 12), page_of(group_of("a", "b"), 9)
    group.begin(10, 100)
    group.take(page)
    assert not group.is_complete(page, 100, is_static=True)
    group.begin(9, 99)
    group.take(page)
    assert group.is_complete(page, 99, is_static=True)


def test_a_younger_job_that_goes_does_not_shift_a_group() -> None:
    """The list gets shorter, but the group ends where it did: its beginning is not moved."""
    group, page = Group(time_of(5), set(), 12), page_of(group_of("a", "b"), 10)
    group.begin(10, 100)
    group.take(page)
    assert group.is_complete(page, 99, is_static=True)


def test_more_jobs_than_positions_are_not_a_group() -> None:
    """When more were seen than there are positions, some have vanished."""
    group, page = Group(time_of(5), set(), 13), page_of(group_of("a", "b"), 10)
    group.begin(10, 100)
    group.take(page_of(group_of("a", "b", "gone"), 10))
    assert not group.is_complete(page, 100, is_static=True)
    group.begin(10, 100)
    group.take(page)
    assert group.is_complete(page, 100, is_static=True)


def test_a_group_does_not_end_in_a_gap() -> None:
    """A page that has no job of the group, nor an older one, does not end it."""
    group = Group(time_of(5), set(), 11)
    group.begin(10, 100)
    group.take(page_of(group_of("a"), 10, is_newest=False))
    younger = Page([job(50, 7)], 11, is_oldest=False, is_newest=False)
    assert not group.is_complete(younger, 100, is_static=True)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("number", range(2, 14))
def test_a_job_that_vanishes_as_another_appears_hides_none(number: int, *, is_new: bool) -> None:
    """A job of a group goes and a late one comes: the list is as long as it was.

    The late one is of the same time, if the group is new, else it stands elsewhere.
    """
    chance, tick = random.Random(number), timedelta(milliseconds=1)
    for _ in range(20):
        account = DemoAccount(2)
        start = datetime.now(UTC) - DEMO_START if is_new else timedelta(days=1)
        group = [account.create(gap) for gap in (start, *[timedelta(0)] * 4)]
        for _ in range(10):
            account.create(tick)
        gone, there, shelf = chance.choice(group), [*account.jobs], Shelf()
        api = DemoAPI(account, order=lambda jobs: newest_first(chance.sample(jobs, len(jobs))))
        api.before_answer = partial(swap, api, number, gone, -tick * (10 if is_new else 5))
        shelf.run(api, page_size=3, max_connections=1)
        assert {job["id"] for job in there if job is not gone} <= {*shelf.jobs}


def swap(api: DemoAPI, number: int, gone: Any, gap: timedelta, account: DemoAccount) -> None:
    """Before that answer, let a job vanish and another one appear."""
    if len(api.requests) == number:
        account.jobs.remove(gone)
        account.create(gap)


@pytest.mark.parametrize("order", [newest_first, oldest_first, restless])
def test_an_account_of_one_time_is_read(order: Any) -> None:
    """An account whose jobs were all created at one moment is read."""
    shelf, api = Shelf(), DemoAPI(DemoAccount(130, every=timedelta(0)), order=order)
    shelf.run(api, page_size=20)
    assert set(shelf.jobs) == {job["id"] for job in api.account.jobs}


@pytest.mark.parametrize("order", [newest_first, oldest_first, restless])
def test_250_jobs_of_one_time_among_others_are_read(order: Any) -> None:
    """Jobs of one time that fill pages are all read, once."""
    account = DemoAccount(120)
    for gap in [0] * 250 + [1] * 120:
        account.create(timedelta(minutes=gap))
    shelf, api = Shelf(), DemoAPI(account, order=order)
    shelf.run(api)
    assert set(shelf.jobs) == {job["id"] for job in account.jobs}


def test_one_time_in_an_order_of_the_request_is_read() -> None:
    """Jobs of one time, in an order that follows from offset and limit, are all read."""
    shelf, api = Shelf(), Planned(DemoAccount(250, every=timedelta(0)))
    shelf.run(api)
    assert set(shelf.jobs) == {job["id"] for job in api.account.jobs}


@pytest.mark.parametrize("order", [newest_first, oldest_first])
def test_one_time_on_small_pages_is_read_by_every_limit(order: Any) -> None:
    """What pages of 4 at each offset don't show, pages of 3 or 2 do: all of them are tried."""
    for seed in (7, 15, 17, 28):
        shelf, api = Shelf(), Planned(DemoAccount(60, every=timedelta(0)), seed=seed, order=order)
        shelf.run(api, page_size=4)
        assert set(shelf.jobs) == {job["id"] for job in api.account.jobs}


@pytest.mark.parametrize(("page_size", "size", "requests"), [(100, 109, 20), (5, 7, 60)])
def test_a_group_that_hardly_passes_a_page_is_read(
    page_size: int, size: int, requests: int
) -> None:
    """Pages that lead beyond the newest job are alike: they don't count as ways through a group."""
    for seed in range(8):
        account = DemoAccount(2 * page_size)
        for gap in [1] + [0] * (size - 1):
            account.create(timedelta(minutes=gap))
        shelf, api = Shelf(), Planned(account, seed=seed)
        shelf.run(api, page_size=page_size)
        assert set(shelf.jobs) == {job["id"] for job in account.jobs}
        assert len(api.requests) < requests


@pytest.mark.parametrize(("size", "others", "seed"), [(60, 0, 32), (10, 8, 777)])
def test_every_page_is_tried_before_a_group_is_given_up(size: int, others: int, seed: int) -> None:
    """In these orders by request, one job of the group is on no page of 4, 3 or 2 jobs."""
    account = DemoAccount(others + 1)
    for gap in [0] * (size - 1) + [1] * others:
        account.create(timedelta(minutes=gap))
    api = Planned(account, seed=seed)
    with pytest.raises(ResponseError):
        Shelf().run(api, page_size=4)
    asked = {(int(request["limit"]), int(request["offset"])) for request in api.requests}
    for limit in (4, 3, 2):
        offsets = range(max(0, others - limit + 1), min(others + size, len(account.jobs) - 3))
        assert {(limit, offset) for offset in offsets} <= asked


# Failures.


def test_pages_that_stay_empty_are_given_up() -> None:
    """A list that says it is long, and shows nothing but its first page, has an end."""
    api = DemoAPI(DemoAccount(300))
    page = api.page

    def empty(limit: int, offset: int, status: str | None) -> dict[str, Any]:
        body = page(limit, offset, status)
        if offset:
            body["jobs"] = []
        body["pagination"]["total"] = 10**6
        return body

    api.page = empty  # type: ignore[method-assign]
    with pytest.raises(ResponseError, match="its pages hold others or fewer"):
        Shelf().run(api)


@pytest.mark.parametrize("status", [None, "pending"])
def test_the_same_page_for_ever_is_given_up(status: str | None) -> None:
    """A list that is said to be endless, of which one page comes again and again, has an end."""
    api, shelf = DemoAPI(DemoAccount(300)), Shelf()
    if status:
        shelf.run(api)
    page, pages = api.page, []

    asked = status

    def endless(limit: int, offset: int, status: str | None) -> dict[str, Any]:
        if status != asked:
            return page(limit, offset, status)
        pages.append(offset)
        body = page(100, 0, status)
        body["pagination"] |= {"offset": offset, "total": 10**15}
        return body

    api.page = endless  # type: ignore[method-assign]
    if status:
        shelf.run(api)
    else:
        with pytest.raises(ResponseError, match="says 1000000000000000 jobs, but its pages"):
            shelf.run(api)
    assert len(pages) < 150


def test_a_list_that_outruns_its_reader_is_unavailable() -> None:
    """A list that grows by pages between two requests is an error that passes."""
    api, shelf = DemoAPI(DemoAccount(50)), Shelf()

    def grow(account: DemoAccount) -> None:
        for _ in range(20):
            account.create()

    api.before_answer = grow
    with pytest.raises(UnavailableError, match="moves faster than it can be read"):
        shelf.run(api, page_size=10)
    assert len(api.requests) < 200


def test_a_page_that_was_fetched_earlier_is_no_disorder(warehouse: Warehouse, serve: Serve) -> None:
    """When a page is answered late, after the pages ahead of it, the list may have moved on."""
    api = serve(DemoAccount(1000))
    for job in api.account.jobs[:5]:
        job.update(status="pending", results=None)
    there = {job["id"] for job in api.account.jobs}

    def retry_one_late(query: dict[str, str]) -> Reply | None:
        if len(api.requests) != 4:
            return None
        while len(api.requests) < 5:  # the page ahead is answered first
            time.sleep(0.001)
        time.sleep(0.1)
        for job in api.account.jobs[:5]:
            api.account.create()
            api.account.cancel(job)
        return Reply(503, query)

    api.fault = retry_one_late
    warehouse.load(api)
    stayed = there & {job["id"] for job in api.account.jobs}
    assert {(key,) for key in stayed} <= set(warehouse.rows("jobs", "id"))
    state = warehouse.pipeline.state["sources"]["convertly"]["resources"]["jobs"]["all"]
    assert state["cursor"]


# Ids, times and orders that are odd.


@pytest.mark.parametrize("raw", [None, 5, "text", [], [{"id": "a"}], True])
def test_an_entry_that_is_no_object_is_not_usable(raw: Any) -> None:
    """What the list may hold beside objects has no id, no time and no status."""
    parsed = ListedJob.parse(raw)
    assert (parsed.raw, parsed.id, parsed.created_at) == (raw, None, None)
    assert (parsed.is_usable, parsed.status, parsed.is_final) == (False, "", False)
    assert parsed.content_hash == ListedJob.parse(raw).content_hash


@pytest.mark.parametrize(
    ("identity", "key"),
    [
        ("a\ufffdb", "a\ufffdb"),
        (" Ab ", " Ab "),
        (" \t", None),
        ("", None),
        (7, "7"),
        (True, None),
    ],
)
def test_an_id_is_taken_as_it_is(identity: Any, key: str | None) -> None:
    """An id is not stripped or folded, and not made of another value than a text or integer."""
    assert ListedJob.parse({"id": identity}).id == key
    assert ListedJob.parse({"id": "1", "status": identity}).status == (
        "True" if identity is True else (key or identity)
    )


def test_entries_that_are_no_objects_are_rejected() -> None:
    """Nulls, numbers and lists among the jobs are handed over as rejected, with the rest."""
    entries: list[Any] = list(DemoAccount(250, every=timedelta(minutes=1)).jobs)
    for position, odd in ((50, None), (110, 5), (170, ["list"])):
        entries.insert(position, odd)

    class Fixed:
        def page(self, offset: int, limit: int, _: str | None = None) -> JobsPage:
            return JobsPage(entries[::-1][offset : offset + limit], offset, len(entries))

    run = IncrementalRun(
        Listing(cast("JobsClient", Fixed()), 100, 4), None, new_state(), (BEGINNING, END)
    )
    changes = list(run.changes)
    assert [job.job.raw for found in changes for job in found.rejected] == [None, 5, ["list"]]
    assert sum(len(found.jobs) for found in changes) == 250
    assert run.held == run.listed == 253


def test_the_younger_of_two_entries_with_one_id_wins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When a job is listed twice, the younger entry is loaded, a warning names it, all is read."""
    account = DemoAccount(250, every=timedelta(minutes=1))
    older, younger = account.jobs[40], account.jobs[41]
    older.update(id=younger["id"], status="failed")
    younger.update(status="completed")
    shelf, api = Shelf(), DemoAPI(account)
    shelf.run(api)
    assert shelf.jobs[younger["id"]]["created_at"] == ListedJob.parse(younger).created_at
    assert len(shelf.jobs) == 249
    assert shelf.last_run.held == shelf.last_run.listed == 250
    warnings = [record.message for record in caplog.records if "twice" in record.message]
    assert len(warnings) == 1
    assert younger["id"] in warnings[0]


def test_a_group_with_one_id_twice_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """Two entries with one id are two positions, also where one time fills pages."""
    account = DemoAccount(130, every=timedelta(0))
    account.jobs[60]["id"] = account.jobs[61]["id"]
    shelf, api = Shelf(), DemoAPI(account)
    shelf.run(api, page_size=20)
    assert len(shelf.jobs) == 129
    assert "twice" in caplog.text


def test_times_at_the_ends_of_the_calendar_are_read() -> None:
    """Jobs that are said to be of the year 1 or 9999 are found and handed over."""
    account = DemoAccount(250, every=timedelta(minutes=1))
    account.jobs[0]["created_at"] = "0001-01-01T00:00:00Z"
    account.jobs[-1]["created_at"] = "9999-12-31T23:59:59.999999Z"
    shelf, api = Shelf(), DemoAPI(account)
    for _ in range(2):
        shelf.run(api)
        assert len(shelf.jobs) == 250
    assert shelf.state["cursor"] == ListedJob.parse(account.jobs[-2]).created_at


def test_jobs_without_a_time_may_change_places() -> None:
    """Jobs of an unknown time that fill pages and change places are all recorded."""
    account = DemoAccount(20)
    for number in range(12):
        account.create(error_message=str(number))["created_at"] = "yesterday"
    shelf = Shelf()
    shelf.run(DemoAPI(account, order=restless), page_size=6)
    assert (len(shelf.rejected), len(shelf.jobs)) == (12, 20)


def test_jobs_without_an_id_are_told_apart() -> None:
    """Jobs of one time without an id, in a restless order that fills pages, are all recorded."""
    account = DemoAccount(5)
    for number in range(12):
        job = account.create(timedelta(0), error_message=str(number))
        job["id"] = None if number % 3 == 0 else job["id"]
    shelf = Shelf()
    shelf.run(DemoAPI(account, order=restless), page_size=6)
    assert (len(shelf.rejected), len(shelf.jobs)) == (4, 13)


def test_an_order_that_the_first_page_refutes_is_not_believed() -> None:
    """A first page without order counts even if its ends look sorted and other pages are."""

    def few_swapped(jobs: list[Any]) -> list[Any]:
        ordered = sorted(jobs, key=lambda job: job["created_at"])
        return [ordered[1], ordered[-1], ordered[2], *ordered[3:-1], ordered[0]]

    account, shelf = DemoAccount(40), Shelf()
    shelf.run(DemoAPI(account, order=few_swapped), page_size=8)
    assert len(shelf.jobs) == 40


def test_a_list_of_one_time_that_gets_others_is_unavailable() -> None:
    """When the order of the list can't be known, the run says so instead of guessing."""
    api, shelf = DemoAPI(DemoAccount(130, every=timedelta(0)), order=oldest_first), Shelf()

    def create(account: DemoAccount) -> None:
        if len(api.requests) == 4:
            for _ in range(30):
                account.create()

    api.before_answer = create
    with pytest.raises(UnavailableError):
        shelf.run(api, page_size=20)
    shelf.run(api, page_size=20)
    assert len(shelf.jobs) == 160


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_time_beside_jobs_without_one_is_found(count: int, step: int) -> None:
    """Jobs without a time pass for older ones at the end of a page, not at its beginning."""
    for first in range(20, 60):
        account = DemoAccount(150, every=timedelta(minutes=1))
        created_at = ListedJob.parse(account.jobs[first + count]).created_at or BEGINNING
        for job in account.jobs[first : first + count]:
            job["created_at"] = None
        found = listing(DemoAPI(account, order=lambda jobs: jobs[::step]), 10)
        for position in (None, *range(0, 150, 11)):
            page = found.search(created_at, position)
            assert page.position + len(page.jobs) > first + count
            assert page.position <= first + count


def test_the_first_job_may_be_created_at_any_time() -> None:
    """Without an order too, a job of the year 1 is within every range."""
    account, shelf = DemoAccount(60), Shelf()
    account.jobs[5]["created_at"] = "0001-01-01T00:00:00Z"
    shelf.run(DemoAPI(account, order=in_no_order), page_size=8)
    assert len(shelf.jobs) == 60


def test_a_window_of_a_list_without_order_is_complete() -> None:
    """Without an order, a window still gets each of its jobs, and none else."""
    account, shelf = DemoAccount(60), Shelf()
    start, end = (ListedJob.parse(account.jobs[number]).created_at for number in (10, 30))
    assert start
    assert end
    shelf.run(DemoAPI(account, order=in_no_order), page_size=8, window=(start, end))
    assert set(shelf.jobs) == {job["id"] for job in account.jobs[10:30]}


def test_a_clamped_page_is_not_the_end() -> None:
    """A server that gives 37 jobs for 100 is asked for 37 from then on."""
    found = listing(Clamping(DemoAccount(500)))
    assert found.size == 37
    assert not found.newest_page.is_oldest
    assert found.search(BEGINNING + TICK).is_oldest


def test_the_server_clock_is_that_of_its_answer(serve: Serve) -> None:
    """The answer's `Date` is the time of the run, else this machine's clock is."""
    client = JobsClient("cvly_demo", serve(DemoAccount(3)).url)
    assert abs(Pages(client, 100, 1).now - datetime.now(UTC)) < timedelta(minutes=1)
    assert abs(listing(DemoAPI(DemoAccount(3))).now - datetime.now(UTC)) < timedelta(minutes=1)


def test_shuffled_jobs_are_all_read() -> None:
    """A list in another order with each request, without any order, is read all the same."""
    shelf, api = Shelf(), DemoAPI(DemoAccount(150), order=shuffled)
    shelf.run(api, page_size=50)
    assert set(shelf.jobs) == {job["id"] for job in api.account.jobs}


# Sequences that the adversary found, each as short as can be.


def at_request(api: DemoAPI, number: int, do: Callable[[DemoAccount], None]) -> None:
    """Let something happen just before the answer to a request, counted from now on."""
    asked = len(api.requests)

    def act(account: DemoAccount) -> None:
        if len(api.requests) == asked + number:
            do(account)

    api.before_answer = act


def create(account: DemoAccount, count: int, gap: timedelta = timedelta(seconds=1)) -> None:
    """Create jobs that have ended."""
    for _ in range(count):
        account.finish(account.create(gap))


def assert_nothing_lost(shelf: Shelf, api: DemoAPI, **options: Any) -> None:
    """Run while something happens; what was there from start to end must be loaded."""
    there = {job["id"] for job in api.account.jobs}
    shelf.run(api, **options)
    assert there & {job["id"] for job in api.account.jobs} <= set(shelf.jobs)
    api.before_answer = lambda _: None
    shelf.run(api, **options)
    assert {job["id"] for job in api.account.jobs} <= set(shelf.jobs)


def test_jobs_that_moved_on_are_not_the_end() -> None:
    """A short page is followed by the very same jobs when as many are created: no end there."""
    api = Clamping(DemoAccount(120, every=timedelta(minutes=1)))
    at_request(api, 2, lambda account: create(account, 37))
    assert_nothing_lost(Shelf(), api)


def test_a_list_that_has_shrunk_does_not_end_with_a_short_page() -> None:
    """Nothing follows a short page when what followed was purged: that proves no end."""
    api = Clamping(DemoAccount(38, every=timedelta(minutes=1)))

    def purge(account: DemoAccount) -> None:
        del account.jobs[0]

    at_request(api, 2, purge)
    found = listing(api)
    assert not found.newest_page.is_oldest
    assert_nothing_lost(Shelf(), api)


def test_a_stale_total_does_not_make_pages_small() -> None:
    """A job that is created where a lagging total says that one follows is no sign of a clamp."""
    api = DemoAPI(DemoAccount(150, every=timedelta(minutes=1)), order=oldest_first)
    page = api.page

    def lag(limit: int, offset: int, status: str | None) -> dict[str, Any]:
        body = page(limit, offset, status)
        body["pagination"]["total"] += len(api.requests) == 2
        return body

    api.page = lag  # type: ignore[method-assign]
    at_request(api, 3, lambda account: create(account, 1))
    assert listing(api).size == 100


def test_an_empty_answer_is_not_believed_at_rest() -> None:
    """When a replica knew no jobs, the full read comes short of the total: all jobs are read."""
    api, shelf = Clamping(DemoAccount(120, every=timedelta(minutes=1))), Shelf()
    page = api.page

    def forget(limit: int, offset: int, status: str | None) -> dict[str, Any]:
        body = page(limit, offset, status)
        return body | {"jobs": body["jobs"] * (len(api.requests) != 2)}

    api.page = forget  # type: ignore[method-assign]
    shelf.run(api)
    assert len(shelf.jobs) == 120
    shelf.run(api)
    assert shelf.last_run.held == shelf.last_run.listed == 120


def test_a_newest_page_that_is_outrun_cuts_no_group() -> None:
    """Oldest first, jobs of the time at which the newest page ends may stand after it."""
    account = DemoAccount(12, every=timedelta(minutes=1))
    create(account, 6, timedelta(0))
    api = DemoAPI(account, order=oldest_first)
    api.before_answer = lambda account: create(account, 3)
    shelf = Shelf()
    there = {job["id"] for job in account.jobs}
    shelf.run(api, page_size=6)
    assert there <= set(shelf.jobs)


def test_one_time_at_each_end_shows_the_order() -> None:
    """Two groups that fill the first and the last page tell which of them is older."""
    account = DemoAccount(0)
    create(account, 30, timedelta(0))
    create(account, 1, timedelta(hours=1))
    create(account, 30, timedelta(0))
    for order in (newest_first, oldest_first):
        found = listing(DemoAPI(account, order=order), 10)
        assert found.is_newest_first is (order is newest_first)
        assert_nothing_lost(Shelf(), DemoAPI(account, order=order), page_size=10)


def test_two_pages_of_a_list_that_moved_show_no_order() -> None:
    """Each of the first two answers may show one time, the second that of jobs that came since."""
    account = DemoAccount(15)
    create(account, 12, timedelta(0))
    api = DemoAPI(account)

    def import_jobs(account: DemoAccount) -> None:
        if len(api.requests) == 2:
            create(account, 1, timedelta(minutes=1))
            create(account, 32, timedelta(0))

    api.before_answer = import_jobs
    found = listing(api, 10)
    assert (found.is_ordered, found.is_newest_first) == (True, True)


def test_a_last_page_that_a_purge_emptied_shows_no_order() -> None:
    """When many jobs vanish between the first two answers, the last page is looked for again."""
    account = DemoAccount(0)
    create(account, 30, timedelta(seconds=1))
    create(account, 12, timedelta(0))
    api = DemoAPI(account, order=oldest_first)

    def purge(account: DemoAccount) -> None:
        if len(api.requests) in (1, 2):  # all that is left is of the group, then younger jobs come
            del account.jobs[: 30 if len(api.requests) == 1 else 10]

    api.before_answer = purge
    create(account, 5, timedelta(seconds=1))
    found = listing(api, 6)
    assert (found.is_ordered, found.is_newest_first) == (True, False)


def test_a_last_page_that_is_no_longer_the_last_shows_no_order() -> None:
    """A job that comes between the first two answers pushes the only older job off the second."""
    account = DemoAccount(1)
    create(account, 1, timedelta(hours=1))
    create(account, 11, timedelta(0))
    api, shelf = DemoAPI(account), Shelf()
    there = {job["id"] for job in account.jobs}

    def grow(account: DemoAccount) -> None:
        if len(api.requests) == 2:
            create(account, 1)

    api.before_answer = grow
    shelf.run(api, page_size=10)
    assert set(shelf.jobs) >= there


def test_a_short_list_of_one_time_that_grows_is_unavailable() -> None:
    """A list that fits in a page and has one time shows no order either."""
    api, shelf = DemoAPI(DemoAccount(0), order=oldest_first), Shelf()
    gone = api.account.create()
    create(api.account, 1, timedelta(hours=1))
    create(api.account, 2, timedelta(0))
    shelf.run(api, page_size=6)
    api.account.cancel(gone)

    def grow(account: DemoAccount) -> None:
        if len(api.requests) == asked + 4:  # after the newest page and two lists of open jobs
            create(account, 4)

    asked = len(api.requests)
    api.before_answer = grow
    with pytest.raises(UnavailableError):
        shelf.run(api, page_size=6)
    api.before_answer = lambda _: None
    shelf.run(api, page_size=6)
    assert set(shelf.jobs) >= {job["id"] for job in api.account.jobs}


@pytest.mark.parametrize(("created", "error"), [(0, ResponseError), (1, UnavailableError)])
def test_a_list_that_never_shows_two_times_is_an_error(
    created: int, error: type[Exception]
) -> None:
    """When no page shows the order, the run ends instead of guessing it."""
    api = OneTimeEach(DemoAccount(1000))
    api.before_answer = lambda account: create(account, created)
    with pytest.raises(error):
        listing(api, 10)


def test_a_group_at_the_oldest_end_is_read_in_any_order() -> None:
    """Also where nothing is older, rounds begin at other offsets."""
    account = DemoAccount(0)
    create(account, 25, timedelta(0))
    create(account, 30, timedelta(minutes=1))
    for seed in range(20):
        api = Planned(account, seed, oldest_first)
        shelf = Shelf()
        shelf.run(api, page_size=6)
        assert len(shelf.jobs) == 55


def test_a_first_round_that_a_purge_cuts_short_is_no_measure() -> None:
    """When older jobs vanish, the next round is a first one, and its useful pages count too."""
    jobs = [job(number, 0) for number in range(6)]
    group = Group(time_of(0), set(), 11)
    before = group.useful_pages
    group.begin(9, 20)
    group.take(cut(jobs, 0, 3))
    group.begin(5, 16)
    group.take(cut(jobs, 3, 3))
    assert group.useful_pages == before + 2
