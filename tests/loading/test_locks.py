"""One load at a time into a target: others are refused or wait, and no dead one is in the way."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event

import dlt
import pytest
from dlt.destinations.exceptions import DatabaseTransientException
from helpers.script import content, kill, listed
from helpers.warehouse import Place, load_into

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import BusyError, explained
from convertly_source.loading import Target
from convertly_source.loading.backfill import load_window, plan_windows
from convertly_source.loading.locks import database_lock, file_lock, has_lock
from convertly_source.loading.target import working_folder

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
Connect = Callable[[], dlt.Pipeline]
TARGET = Target()
HOLD = "import sys, filelock; it = filelock.FileLock(sys.argv[1]); it.acquire(); input(0)"
SERVERS = pytest.mark.parametrize("place", ["postgres", "sqlalchemy on mariadb"], indirect=True)
POSTGRES = pytest.mark.parametrize("place", ["postgres"], indirect=True)


@contextmanager
def held_in_a_thread(lock: Callable[[], object]) -> Iterator[Event]:
    """Hold a lock in another thread, until the event that this yields is set or the block ends."""
    has_it, is_over = Event(), Event()

    def hold() -> None:
        with lock():  # type: ignore[attr-defined]
            has_it.set()
            is_over.wait()

    with ThreadPoolExecutor(1) as threads:
        holder = threads.submit(hold)
        try:
            while not has_it.wait(0.05):
                assert not holder.done(), holder.exception()
            yield is_over
        finally:
            is_over.set()
        holder.result()


@pytest.fixture
def lock_of_target() -> Callable[[], object]:
    """Return a way to take the lock of the target in this machine."""
    place = TARGET.place()
    return lambda: file_lock(working_folder(place), place)


def test_a_second_load_is_refused_at_once(
    serve: Serve, lock_of_target: Callable[[], object]
) -> None:
    """It says where and since when another one is under way, before any request."""
    api = serve(DemoAccount(5))
    with held_in_a_thread(lock_of_target), pytest.raises(BusyError) as refused:
        load_into(TARGET, api)
    assert TARGET.place() in str(refused.value)
    found = re.search(r"is under way, since (\S+ \S+) UTC\.$", str(refused.value))
    assert found
    since = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    assert timedelta(0) <= datetime.now(timezone.utc) - since < timedelta(minutes=1)
    assert refused.value.setting == "wait_seconds"
    assert not api.requests
    assert load_into(TARGET, api).new_jobs == 5


def test_without_a_note_of_its_start_it_is_refused_too(
    lock_of_target: Callable[[], object],
) -> None:
    """A holder that has not yet written since when it loads is a holder all the same."""
    place = TARGET.place()
    with held_in_a_thread(lock_of_target):
        (working_folder(place) / "since").unlink()
        with (
            pytest.raises(BusyError, match=r"is under way\.\nRun again when it has ended\.$"),
            file_lock(working_folder(place), place),
        ):
            pass


def test_a_load_waits_for_the_one_before_it(
    serve: Serve, lock_of_target: Callable[[], object]
) -> None:
    """With `wait_seconds` it begins when the other has ended, and is refused after that time."""
    api = serve(DemoAccount(5))
    with held_in_a_thread(lock_of_target) as is_over, ThreadPoolExecutor(1) as threads:
        with pytest.raises(BusyError):
            load_into(TARGET, api, wait_seconds=0.1)
        waiting = threads.submit(lambda: load_into(TARGET, api, wait_seconds=60))
        assert not is_over.wait(0.3)
        assert not waiting.done()
        assert not api.requests
        is_over.set()
        assert waiting.result().new_jobs == 5


def test_a_killed_process_holds_nobody_back(serve: Serve) -> None:
    """The lock file that a dead process leaves is free."""
    api = serve(DemoAccount(5))
    folder = working_folder(TARGET.place())
    folder.mkdir(parents=True)
    command = [sys.executable, "-uc", HOLD, str(folder / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.read(1) == "0"
        with pytest.raises(BusyError):
            load_into(TARGET, api)
        kill(process)
    assert (folder / "lock").exists()
    assert load_into(TARGET, api).new_jobs == 5


def test_a_window_and_a_load_keep_each_other_out(
    serve: Serve, lock_of_target: Callable[[], object]
) -> None:
    """Where one writer is allowed, neither begins while the other is under way."""
    api = serve(DemoAccount(5))
    settings = {"api_key": DEMO_KEY, "base_url": api.url}
    [window] = plan_windows(TARGET, settings, None, None, 40)
    with held_in_a_thread(lock_of_target), pytest.raises(BusyError, match="is under way, since"):
        load_window(window, TARGET, settings)
    refused = list[BusyError]()

    def load_meanwhile(_: DemoAccount) -> None:
        with pytest.raises(BusyError) as caught, lock_of_target():  # type: ignore[attr-defined]
            pass
        refused.append(caught.value)

    api.before_answer = load_meanwhile
    assert load_window(window, TARGET, settings)["jobs"] == 5
    assert refused
    api.before_answer = lambda _: None
    load_into(TARGET, api)
    assert content() == listed(api.account)


def test_duckdb_has_no_lock_of_its_own(tmp_path: Path) -> None:
    """There nothing is asked of the database: its file has one writer."""
    pipeline = TARGET.pipeline(tmp_path / "one")
    assert not has_lock(pipeline)
    with database_lock(pipeline, "here"), database_lock(pipeline, "here"):
        pass
    assert not Path("convertly.duckdb").exists()


@pytest.fixture
def connect(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a way to make a pipeline into the same dataset, as on another machine."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    _, dataset, _, destination = place.arguments
    target = Target(destination, dataset)

    def make() -> dlt.Pipeline:
        make.count += 1  # type: ignore[attr-defined]
        return target.pipeline(tmp_path / f"machine_{make.count}")  # type: ignore[attr-defined]

    make.count = 0  # type: ignore[attr-defined]
    return make


def is_free(pipeline: dlt.Pipeline, *, is_shared: bool = False) -> bool:
    """Return whether the lock of a database can be had at once."""
    with suppress(BusyError), database_lock(pipeline, "here", is_shared=is_shared):
        return True
    return False


@pytest.mark.slow
@SERVERS
def test_a_database_has_one_load_at_a_time(connect: Connect) -> None:
    """Its lock is held by one connection, and free when that has ended, however it ended."""
    one, two = connect(), connect()
    assert has_lock(one)
    with database_lock(one, "here"):
        assert not is_free(two)
    assert is_free(two)
    with pytest.raises(ZeroDivisionError), database_lock(one, "here"):
        raise ZeroDivisionError
    assert is_free(two)


@pytest.mark.covers
@pytest.mark.slow
@SERVERS
def test_a_load_waits_for_the_lock_of_a_database(connect: Connect) -> None:
    """With `wait_seconds` it has the lock soon after the other has ended, or is refused then."""
    one, two = connect(), connect()
    with held_in_a_thread(lambda: database_lock(one, "here")) as is_over:
        with (
            pytest.raises(BusyError, match=r"here is under way\.\nRun again when it has ended\.$"),
            database_lock(two, "here", 0.3),
        ):
            pass
        with ThreadPoolExecutor(1) as threads:
            threads.submit(is_over.wait, 0.3).add_done_callback(lambda _: is_over.set())
            with database_lock(two, "here", 60):
                assert is_over.is_set()


@pytest.mark.slow
@SERVERS
def test_other_datasets_are_not_locked(connect: Connect) -> None:
    """A dataset is locked, not the database; a long name is as good as another."""
    one, two = connect(), connect()
    two.dataset_name = "other"
    one.dataset_name = "d" * 60
    with database_lock(one, "here"):
        assert is_free(two)


@pytest.mark.slow
@POSTGRES
def test_windows_share_the_lock_of_postgres(connect: Connect) -> None:
    """Several windows load at once, beside no ordinary load; and none begins beside that."""
    one, two = connect(), connect()
    with database_lock(one, "here", is_shared=True):
        assert is_free(two, is_shared=True)
        assert not is_free(two)
    with database_lock(one, "here"):
        assert not is_free(two, is_shared=True)
    assert is_free(two)


@pytest.mark.slow
@POSTGRES
def test_a_lost_lock_is_noticed(connect: Connect) -> None:
    """A load whose connection with the lock was ended does not end as if all was well."""
    one, two = connect(), connect()
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"

    def lose() -> None:
        with database_lock(one, "here"):
            with two.sql_client() as client:
                client.execute_sql(end)
            assert is_free(two)

    with pytest.raises(DatabaseTransientException) as lost:
        lose()
    known = explained(lost.value)
    assert "can't be used" in str(known)
