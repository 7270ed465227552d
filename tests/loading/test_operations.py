"""What happens around a load: other loads, kills, refreshes, and hands in the destination.

OPERATIONS_TRIES sets how often what depends on timing is tried.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from helpers.operations import Loader, end, expected, live
from helpers.script import kill
from helpers.warehouse import Place

from convertly_source.demo import DemoAccount, DemoAPI

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
TRIES = range(int(os.environ.get("OPERATIONS_TRIES", "1")))
DATABASES = pytest.mark.parametrize(
    "place", ["duckdb", "postgres", "sqlalchemy on mariadb"], indirect=True
)
SERVERS = pytest.mark.parametrize("place", ["postgres", "sqlalchemy on mariadb"], indirect=True)


@pytest.fixture
def loader(serve: Serve, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Load a demo account whose API takes its time into an empty dataset."""
    for name, value in place.settings.items():
        monkeypatch.setenv(name, value)
    loader = Loader(serve(DemoAccount(1200)), place, tmp_path)
    loader.api.before_answer = lambda _: time.sleep(0.02)
    return loader


@contextmanager
def held_back(api: DemoAPI) -> Iterator[None]:
    """Let the API answer nothing in the meantime."""
    is_over = Event()

    def wait(_: dict[str, str]) -> None:
        is_over.wait()

    api.fault = wait
    yield
    api.fault = lambda _: None
    is_over.set()


@DATABASES
@pytest.mark.parametrize("seed", TRIES)
def test_a_killed_refresh_leaves_nothing_less(loader: Loader, seed: int) -> None:
    """Killed at any moment of a full refresh, the next ordinary load gives the account."""
    chance = random.Random(seed)
    assert loader.load().returncode == 0
    loader.assert_equal()
    for _ in range(2):
        process = loader.start("--full-refresh")
        try:
            process.communicate(timeout=chance.uniform(1.5, 6))
        except subprocess.TimeoutExpired:
            kill(process)
            process.communicate()
        assert len(loader.loaded()) >= 1200 - loader.away_at_most
        live(loader.api.account, chance)
    done = loader.load()
    assert done.returncode == 0, done.stderr
    loader.assert_equal()


@DATABASES
@pytest.mark.parametrize("seed", TRIES)
def test_a_killed_load_loses_nothing(loader: Loader, seed: int) -> None:
    """Killed in extract, normalize or load, again and again, nothing is lost or doubled."""
    chance = random.Random(seed)
    for _ in range(3):
        process = loader.start()
        try:
            process.communicate(timeout=chance.uniform(1, 4))
        except subprocess.TimeoutExpired:
            kill(process)
            process.communicate()
        live(loader.api.account, chance)
    code, _, lines = loader.run()
    assert code == 0, lines
    loader.assert_equal()


@SERVERS
def test_a_staging_dataset_may_be_half_made(loader: Loader) -> None:
    """A load that was killed while it made the staging dataset doesn't stop the next one."""
    assert loader.load().returncode == 0
    loader.drop_staging_tables()
    live(loader.api.account, random.Random(0))
    done = loader.load()
    assert done.returncode == 0, done.stderr
    loader.assert_equal()


@DATABASES
def test_a_second_load_is_told_or_waits(loader: Loader) -> None:
    """While a load is under way a second one ends with 1 in two lines; with --wait it follows."""
    with held_back(loader.api):
        first = loader.start()
        while not loader.api.requests:
            time.sleep(0.01)
        code, output, lines = loader.run()
        assert (code, output, len(lines)) == (1, "", 2)
        assert "is under way, since" in lines[0]
        assert "--wait" in lines[1]
        second = loader.start("--wait", "60")
    assert (end(first)[0], end(second)[0]) == (0, 0)
    loader.assert_equal()


@DATABASES
@pytest.mark.parametrize("seed", TRIES)
def test_two_machines_leave_the_account(loader: Loader, seed: int) -> None:
    """Two loads at once from two machines each end with 0 or two lines, and one more heals all."""
    chance = random.Random(seed)
    assert loader.load().returncode == 0
    live(loader.api.account, chance)
    first = loader.start(machine="one")
    time.sleep(chance.uniform(0, 2.2))
    second = loader.start(machine="two")
    for code, _, lines in (end(first), end(second)):
        assert (code, len(lines)) in ((0, 0), (1, 2)), lines
    assert loader.load().returncode == 0
    loader.assert_equal()


@SERVERS
def test_a_killed_holder_holds_nobody_back(loader: Loader) -> None:
    """The lock of a load that was killed is free at once, on its machine and on another."""
    with held_back(loader.api):
        first = loader.start()
        while not loader.api.requests:
            time.sleep(0.01)
        assert loader.run(machine="two")[0] == 1
        kill(first)
        first.communicate()
    assert loader.load("--wait", "5", machine="two").returncode == 0
    assert loader.load().returncode == 0
    loader.assert_equal()


@pytest.mark.parametrize("place", ["duckdb", "postgres"], indirect=True)
@pytest.mark.parametrize("seed", TRIES)
def test_two_datasets_at_once_stay_apart(
    serve: Serve, loader: Loader, place: Place, tmp_path: Path, seed: int
) -> None:
    """Two accounts loaded at once on one machine each end in their own dataset."""
    _, dataset, *destination = place.arguments
    files = {"DESTINATION__DUCKDB__CREDENTIALS": str(tmp_path / "second.duckdb")}
    other_place = Place(
        ["--dataset", f"{dataset}_other", *destination],
        files if "duckdb" in destination else place.settings,
    )
    other = Loader(serve(DemoAccount(900, seed=1)), other_place, tmp_path)
    first = loader.start()
    time.sleep(random.Random(seed).uniform(0, 1))
    second = other.start()
    for code, _, lines in (end(first), end(second)):
        assert code == 0, lines
    assert loader.loaded() == expected(loader.api.account)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in other_place.settings.items():
            patch.setenv(name, value)
        assert other.loaded() == expected(other.api.account)


@SERVERS
def test_a_column_dropped_by_hand_is_healed(loader: Loader) -> None:
    """A column that was dropped is created again, and filled by reading everything."""
    assert loader.load().returncode == 0
    loader.select("ALTER TABLE {jobs} DROP COLUMN progress")
    live(loader.api.account, random.Random(0))
    done = loader.load()
    assert done.returncode == 0, done.stderr
    assert "Reading everything again." in done.stdout
    loader.assert_equal()
    progress = loader.select("SELECT count(progress) FROM {jobs}")
    assert progress == [(len(loader.loaded()),)]
    assert "Loaded 0 jobs" in loader.load().stdout


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_view_of_a_user_stays_after_a_refresh(loader: Loader) -> None:
    """A user's view on the tables neither stops a full refresh nor is lost by it."""
    assert loader.load().returncode == 0
    loader.select("CREATE VIEW {my_view} AS SELECT id FROM {jobs}")
    loader.api.account.create()
    assert loader.load("--full-refresh").returncode == 0
    assert loader.select("SELECT count(*) FROM {my_view}") == [(1201,)]
    loader.api.account.create()
    assert loader.load().returncode == 0
    loader.assert_equal()
