"""Verify in real databases: what differs is loaded, and ordinary loads go on as before."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dlt.common.runtime.collector import NullCollector
from helpers.lists import SaysTooMany, in_no_order
from helpers.operations import expected
from helpers.script import Done, access, assert_refused, load_from, query, run
from helpers.warehouse import Place, load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import explained
from convertly_source.loading import Target, VerifyResult, verify_account
from convertly_source.loading.held import HeldJob, HeldJobs
from convertly_source.loading.locks import file_lock
from convertly_source.loading.target import working_folder
from convertly_source.reading.job import BEGINNING, END, ListedJob, positioned
from convertly_source.tables.records import fingerprint

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
TARGET = Target()
PLACES = pytest.mark.parametrize(
    "place", ["duckdb", "postgres", "sqlalchemy on mariadb"], indirect=True
)
DUCKDB = pytest.mark.parametrize("place", ["duckdb"], indirect=True)


def settled(size: int) -> DemoAccount:
    """Make an account in which every job has ended."""
    account = DemoAccount(size)
    for job in account.unfinished():
        account.finish(job)
    return account


def verify(api: DemoAPI, **settings: Any) -> VerifyResult:
    """Verify the default dataset in DuckDB."""
    source = convertly_source(DEMO_KEY, api.url, **settings)
    return verify_account(TARGET, source)


def requests_of(api: DemoAPI, action: Callable[[], object]) -> int:
    """Count the requests of an action."""
    before = len(api.requests)
    action()
    return len(api.requests) - before


class Database:
    """A dataset that the command line loads into, and a way to ask it and to change it."""

    def __init__(self, api: DemoAPI, place: Place, folder: Path) -> None:
        self.api, self.place, self._folder = api, place, folder

    def run(self, command: str, *arguments: str) -> Done:
        """Run a command; what it prints must not be an error."""
        environment = access(self.api) | self.place.settings
        done = run(command, *self.place.arguments, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in which `{jobs}` is that table."""
        _, dataset, _, destination, *_ = self.place.arguments
        pipeline = Target(destination, dataset).pipeline(self._folder / "reader")
        with pipeline.sql_client() as client:
            names = ("jobs", "jobs__results", "rejected_jobs", "removed_jobs")
            tables = {name: client.make_qualified_table_name(name) for name in names}
            return [tuple(row) for row in client.execute_sql(sql.format(**tables), *values) or ()]

    def removed(self) -> list[tuple[Any, ...]]:
        """Return the removed jobs, with their last status."""
        return self.execute("SELECT id, last_status FROM {removed_jobs} ORDER BY id")

    def assert_equal(self) -> None:
        """Compare jobs, the number of their results, and what can't be stored with the account."""
        results = dict(self.execute("SELECT job_id, count(*) FROM {jobs__results} GROUP BY job_id"))
        jobs = dict(self.execute("SELECT id, status FROM {jobs}"))
        gone = {key for key, _ in self.removed()}
        assert gone <= jobs.keys()
        usable, unusable = DemoAccount(0), list[str]()
        for job in self.api.account.jobs:
            if ListedJob.parse(job).is_usable:
                usable.jobs.append(job)
            else:
                unusable.append(fingerprint(job))
        found = {key: (status, results.get(key, 0)) for key, status in jobs.items()}
        assert {key: one for key, one in found.items() if key not in gone} == expected(usable)
        rejected = self.execute("SELECT fingerprint FROM {rejected_jobs}")
        assert sorted(key for (key,) in rejected) == sorted(unusable)


@pytest.fixture
def database(
    serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Database:
    """Load an account with jobs that can't be stored, the oldest among them."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    account = settled(700)
    for at in (0, 200, 201, 650):
        account.jobs.insert(at, account.jobs[at] | {"id": None, "number": at})
    account.jobs.insert(0, account.jobs[2] | {"id": "no time", "created_at": None})
    account.jobs.insert(400, account.jobs[400] | {"id": "no time either", "created_at": "soon"})
    api = serve(DemoAPI(account, order=lambda jobs: jobs[::-1]))
    database = Database(api, place, tmp_path)
    database.run("load")
    database.assert_equal()
    return database


@pytest.mark.covers
@PLACES
def test_whatever_happened_is_mended(database: Database) -> None:
    """Rows lost, jobs deleted, changed, late or purged: the tables are the account again.

    Of jobs that can't be stored, too. The next load asks once, and finds nothing to do.
    """
    account = database.api.account
    by_number = {job.get("number"): job for job in account.jobs}
    stored = [job for job in account.jobs if ListedJob.parse(job).is_usable]
    one, two, three, four, five = (stored[at] for at in (50, 150, 251, 333, 690))
    nothing = "Verified: 706 jobs listed, 706 held; 0 loaded again, 0 removed.\n"
    assert database.run("verify").stdout == nothing
    database.execute("DELETE FROM {jobs} WHERE id IN (%s, %s)", one["id"], five["id"])
    database.execute("DELETE FROM {jobs__results} WHERE job_id = %s", one["id"])  # five's are left
    lost = fingerprint(by_number[201])
    database.execute("DELETE FROM {rejected_jobs} WHERE fingerprint = %s", lost)
    undated = "UPDATE {rejected_jobs} SET created_at = NULL, status = NULL WHERE fingerprint = %s"
    database.execute(undated, fingerprint(by_number[650]))
    two.update(status="failed", results=None)
    account.jobs.remove(three)
    account.jobs.remove(by_number[200])
    account.jobs.insert(account.jobs.index(four), four | {"id": "late"})
    done = database.run("verify")
    assert done.stdout == "Verified: 705 jobs listed, 705 held; 4 loaded again, 1 removed.\n"
    database.assert_equal()
    assert database.removed() == [(three["id"], "completed")]
    assert requests_of(database.api, lambda: database.run("load")) == 1
    del account.jobs[:100]
    done = database.run("verify", "--all")
    assert done.stdout == "Verified: 605 jobs listed, 605 held; 0 loaded again, 98 removed.\n"
    database.assert_equal()
    nothing = "Verified: 605 jobs listed, 605 held; 0 loaded again, 0 removed.\n"
    assert database.run("load", "--verify").stdout == nothing
    assert requests_of(database.api, lambda: database.run("load")) == 1


@DUCKDB
def test_a_job_that_is_listed_again_leaves_removed_jobs(database: Database) -> None:
    """However late it appears, the load that sees the count rise brings it in, with its results."""
    account = database.api.account
    job = next(job for job in account.jobs if job["id"] and isinstance(job["results"], list))
    at = account.jobs.index(job)
    account.jobs.remove(job)
    assert "1 removed" in database.run("verify").stdout
    assert [key for key, _ in database.removed()] == [job["id"]]
    account.jobs.insert(at, job)
    done = database.run("load")
    assert "Jobs have appeared late, so all were compared: 1 loaded, 0 removed." in done.stdout
    assert database.removed() == []
    database.assert_equal()
    assert requests_of(database.api, lambda: database.run("load")) == 1


@pytest.mark.covers
@DUCKDB
def test_an_open_job_that_comes_back_leaves_removed_jobs(database: Database) -> None:
    """A job that a load has missed, as behind a lagging server, is listed again for the next."""
    account = database.api.account
    job = account.create()
    database.run("load")
    account.cancel(job)
    database.run("load")
    assert database.removed() == [(job["id"], "pending")]
    account.jobs.append(job)
    database.run("load")
    assert database.removed() == []
    database.assert_equal()


@pytest.mark.covers
@DUCKDB
def test_a_job_without_a_time_is_kept_where_it_is_listed(database: Database) -> None:
    """Sorted as the newest job, it gets another older neighbour with each new job, and its time."""
    account = database.api.account
    undated = account.create(created_at=None, status="failed")
    database.run("load")
    account.jobs.remove(undated)
    for _ in range(250):
        account.finish(account.create())
    account.jobs.append(undated)
    database.run("verify", "--all")
    database.assert_equal()
    sql = "SELECT fingerprint FROM {rejected_jobs} ORDER BY created_at DESC LIMIT 1"
    assert database.execute(sql) == [(fingerprint(undated),)]
    times = "(SELECT max(created_at) FROM {jobs}) = (SELECT max(created_at) FROM {rejected_jobs})"
    assert database.execute(f"SELECT {times}") == [(True,)]
    assert requests_of(database.api, lambda: database.run("verify")) <= 12


@pytest.mark.covers
@DUCKDB
def test_results_of_rows_that_came_back_are_not_doubled(database: Database) -> None:
    """A window brings lost rows back beside the results that were left of them."""
    lists = [job for job in database.api.account.jobs if isinstance(job["results"], list)]
    job = next(job for job in lists if job["id"] and job["results"])
    database.execute("DELETE FROM {jobs} WHERE id = %s", job["id"])
    database.run("load", f"--start-date={job['created_at']}", "--end-date=2027-01-01")
    assert "0 loaded again" in database.run("verify").stdout
    database.assert_equal()


@pytest.mark.covers
def test_an_account_without_results_is_verified(serve: Serve) -> None:
    """`pipeline.run` makes `jobs__results` with the first result: verify needs none."""
    account = DemoAccount(0)
    jobs = [account.create() for _ in range(3)]
    for job in jobs[1:]:
        account.finish(job, has_failed=True)
    api = serve(account)
    TARGET.pipeline().run(convertly_source(DEMO_KEY, api.url))
    query(f"DELETE FROM convertly_data.jobs WHERE id = '{jobs[1]['id']}'")
    assert verify(api)[:4] == (3, 3, 1, 0)


@pytest.mark.covers
@pytest.mark.parametrize("order", [lambda jobs: jobs[::-1], lambda jobs: jobs])
def test_a_late_job_arrives_in_one_load(serve: Serve, order: Callable[[Any], Any]) -> None:
    """The load that finds more jobs than were loaded compares all, and says so."""
    api = serve(DemoAPI(settled(1500), order=order))
    load_into(TARGET, api)
    sentences = list[str]()
    api.account.jobs.insert(700, api.account.jobs[700] | {"id": "late"})
    result = load_into(TARGET, api, report=sentences.append)
    [sentence] = sentences
    assert sentence.endswith("so all were compared: 1 loaded, 0 removed.")
    assert (result.rows["jobs"], result.new_jobs) == (1, 1)
    assert query("SELECT count(*) FROM convertly_data.jobs WHERE id = 'late'") == [(1,)]
    assert requests_of(api, lambda: load_into(TARGET, api)) <= 2
    assert len(sentences) == 1


def test_a_load_of_a_part_does_not_verify(serve: Serve) -> None:
    """With a start date, the next load reads its part again instead."""
    api = serve(DemoAPI(settled(300)))
    settings = {"start_date": "2026-05-02"}
    load_into(TARGET, api, settings)
    sentences = list[str]()
    api.account.jobs.insert(100, api.account.jobs[100] | {"id": "late"})
    for _ in range(2):
        load_into(TARGET, api, settings, report=sentences.append)
    assert not sentences
    assert query("SELECT count(*) FROM convertly_data.jobs WHERE id = 'late'") == [(1,)]


def test_it_begins_with_an_ordinary_run(serve: Serve) -> None:
    """New, ended, cancelled and unusable jobs since the last load are not counted as mended."""
    api = serve(DemoAPI(DemoAccount(800)))
    load_into(TARGET, api)
    account = api.account
    account.finish(account.unfinished()[0])
    account.cancel(account.unfinished()[-1])
    account.create()
    account.create()["id"] = None
    account.create(status=5)
    result = verify(api)
    assert result[:4] == (802, 802, 0, 0)
    assert result.requests <= 14
    assert query("SELECT count(*) FROM convertly_data.jobs") == [(802,)]
    assert query("SELECT count(*) FROM convertly_data.removed_jobs") == [(1,)]
    assert query("SELECT status FROM convertly_data.rejected_jobs") == [("pending",)]
    assert verify(api)[:4] == (802, 802, 0, 0)


def test_open_jobs_are_followed_after_it(serve: Serve) -> None:
    """A job that was reopened and found by verify is followed to its end by ordinary loads."""
    api = serve(DemoAPI(settled(800)))
    load_into(TARGET, api)
    job = api.account.jobs[300]
    job.update(status="processing", results=None)
    assert verify(api)[2:4] == (1, 0)
    api.account.finish(job)
    assert load_into(TARGET, api).rows["jobs"] == 1
    assert verify(api)[2:4] == (0, 0)


def test_many_rows_are_loaded_in_chunks(serve: Serve) -> None:
    """What takes more than one load is found by one comparison."""
    api = serve(DemoAPI(settled(900)))
    load_into(TARGET, api)
    query("DELETE FROM convertly_data.jobs")
    query(
        "INSERT INTO convertly_data.jobs BY NAME SELECT 'x' AS id, now() AS created_at,"
        " '1' AS _dlt_load_id, 'x' AS _dlt_id"
    )
    loads = query("SELECT count(*) FROM convertly_data._dlt_loads")[0][0]
    result = verify(api, page_size=3)
    assert result[:4] == (900, 900, 900, 1)
    assert query("SELECT count(*) FROM convertly_data._dlt_loads")[0][0] - loads > 2
    assert result.requests <= 1.5 * (900 + 3)


@pytest.mark.covers
@pytest.mark.parametrize("table", ["jobs", "jobs__results", "removed_jobs"])
def test_a_table_that_was_dropped_is_filled_again(serve: Serve, table: str) -> None:
    """Everything is read and loaded again, as an ordinary load does, and nothing is left to do."""
    api = serve(DemoAPI(settled(300)))
    load_into(TARGET, api)
    before = query("SELECT job_id, value FROM convertly_data.jobs__results ORDER BY ALL")
    query(f"DROP TABLE convertly_data.{table}")
    done = run("verify", **access(api))
    sentence = f"Missing in the destination: {table}. Reading everything again.\n"
    assert done.stdout.startswith(f"{sentence}Verified: 300 jobs listed, 300 held; 0 loaded again")
    assert query("SELECT job_id, value FROM convertly_data.jobs__results ORDER BY ALL") == before
    assert query("SELECT count(*) FROM convertly_data.jobs") == [(300,)]
    assert requests_of(api, lambda: load_into(TARGET, api)) == 1


def test_the_progress_is_told(serve: Serve) -> None:
    """A collector is told of the jobs that are read, page by page."""
    read = list[int]()

    class Told(NullCollector):
        def update(self, name: str, inc: int = 1, *_: Any, **__: Any) -> None:
            if name == "Jobs read":
                read.append(inc)

    api = serve(DemoAPI(settled(500)))
    load_into(TARGET, api)
    source = convertly_source(DEMO_KEY, api.url)
    verify_account(TARGET, source, read_all=True, progress=Told())
    assert sum(read) >= 500


@pytest.mark.covers
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "--destination=filesystem"], 2, "A lake can't be asked which jobs it holds."),
        (["verify", "--dataset=empty"], 2, "There is nothing to compare yet."),
        (["load", "--verify", "--status=failed"], 2, "Only a whole account can be compared."),
        (["load", "--all"], 2, "Add --verify, or leave out --all."),
        (["load", "--verify", "--full-refresh"], 2, "--verify takes the place of a load."),
    ],
)
def test_what_cannot_be_verified_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    """Lakes, parts of an account and what was never loaded: two lines, and exit code 2."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", f"file://{Path.cwd()}/lake")
    api = serve(settled(120))
    load_into(TARGET, api)
    assert_refused(run(*arguments, **access(api)), code, words)
    elsewhere = access(api) | {"CONVERTLY_BASE_URL": "https://other.example"}
    assert_refused(run("verify", **elsewhere), 2, "holds the account of 127.0.0.1, not that of")


def test_a_list_in_no_order_is_refused(serve: Serve) -> None:
    """Positions tell nothing there: exit code 2, and nothing is loaded or removed."""
    api = serve(DemoAPI(settled(300), order=in_no_order))
    load_from(api)
    query("DELETE FROM convertly_data.jobs WHERE id LIKE 'a%'")
    assert_refused(run("verify", **access(api)), 2, "lists jobs in no order")
    assert not query("FROM convertly_data.removed_jobs")


def test_an_account_that_still_differs_ends_with_4(serve: Serve) -> None:
    """An API that counts jobs which it does not list answers something undocumented."""
    api = serve(SaysTooMany(settled(700)))
    load_from(api)
    done = run("load", "--verify", "--all", **access(api))
    assert done.returncode == 4
    what, remedy = done.stderr.splitlines()[-2:]
    assert what == "The API says that there are 740 jobs, and lists 700."
    assert "report it" in remedy


def test_it_waits_for_a_load_under_way(serve: Serve) -> None:
    """It takes the lock of the target, as a load does."""
    api = serve(settled(50))
    place = load_into(TARGET, api).place
    with file_lock(working_folder(place), place):
        assert_refused(run("verify", "--wait=0.1", **access(api)), 1, "is under way")


@pytest.mark.covers
def test_a_job_that_failed_to_be_mapped_is_held() -> None:
    """It has an id, but its row is in `rejected_jobs`, where its fingerprint is the key."""
    job = DemoAccount(1).jobs[0]
    entries = positioned([ListedJob.parse(job)], 0, BEGINNING)
    row = HeldJob(entries[0].created_at, fingerprint(job), job["status"])
    assert HeldJobs([row]).difference(BEGINNING, END, entries) is None


@pytest.mark.parametrize("raw", [None, 5, ["list"], {"id": 7}])
def test_an_entry_that_is_no_job_is_compared(raw: Any) -> None:
    """It is held by its fingerprint, at the time of the next older job, or at the oldest of all."""
    entries = positioned([ListedJob.parse(raw)], 0, BEGINNING)
    found = HeldJobs().difference(BEGINNING, END, entries)
    assert found
    assert found.different == entries
    assert HeldJobs(found.listed).difference(BEGINNING, END, entries) is None


def test_jobs_are_counted_by_time_and_status() -> None:
    """Ranges are half-open; a job can be taken out of any status, and replaced."""
    times = [BEGINNING + timedelta(days=day) for day in range(5)]
    jobs = [HeldJob(time, str(day), "ab"[day % 2]) for day, time in enumerate(times)]
    held = HeldJobs(jobs)
    assert held.count(times[1], times[4]) == 3
    assert held.count(times[1], times[4], "a") == 1
    assert held.count(BEGINNING, END, "c") == 0
    held.discard(times[1], "1")
    held.discard(times[1], "1")
    held.discard(times[2], "1")
    assert held.count(BEGINNING, END) == 4
    held.replace(times[2], times[4], [jobs[1]._replace(created_at=times[3])])
    assert held.between(BEGINNING, END).keys() == {hash(key) for key in "014"}


def test_an_error_is_explained(serve: Serve) -> None:
    """A key that is refused ends it, as it ends a load."""
    api = serve(settled(50))
    load_into(TARGET, api)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - dlt wraps it
        verify_account(TARGET, convertly_source("cvly_wrong", api.url))
    known = explained(failed.value)
    assert known
    assert known.exit_code == 2
