"""Loads where no lock is: another one in between means another attempt, and nothing is lost."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.destinations.exceptions import DestinationConnectionError
from helpers.operations import expected
from helpers.script import held, query

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import BusyError, SettingsError, explained
from convertly_source.loading import Target, unlocked
from convertly_source.loading.load import load_in_chunks
from convertly_source.loading.target import restore
from convertly_source.loading.unlocked import load_alone

pytestmark = pytest.mark.slow
Serve = Callable[..., DemoAPI]
TARGET = Target()


class Machine:
    """One that loads into the target; `meanwhile` happens after its first chunk."""

    def __init__(self, api: DemoAPI, folder: Path) -> None:
        self.folder = folder
        self.meanwhile: Callable[[], object] = lambda: None
        self.attempts = 0
        self._api = api

    def load(self, pipeline: dlt.Pipeline) -> int:
        """Load into a pipeline in chunks of a page; return which attempt it was."""
        self.attempts += 1
        source = convertly_source(DEMO_KEY, self._api.url)
        chunks = load_in_chunks(pipeline, source, 1)
        next(chunks)
        self.meanwhile()
        for _ in chunks:
            pass
        return self.attempts

    def load_alone(self) -> int:
        """Load as where there is no lock."""
        return load_alone(TARGET, self.folder, NULL_COLLECTOR, self.load)

    def load_once(self) -> None:
        """Load whatever others do, as a script with a pipeline of its own."""
        pipeline = TARGET.pipeline(self.folder)
        restore(pipeline)
        self.load(pipeline)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make no pause between attempts; return how long each would be."""
    found = list[float]()
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture
def api(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> DemoAPI:
    """Serve an account of two pages to loads that give up after three attempts."""
    monkeypatch.setattr(unlocked, "MAX_ATTEMPTS", 3)
    return serve(DemoAccount(150))


def assert_equal(account: DemoAccount) -> None:
    """Compare each job and the number of its results with the account."""
    results = dict(query("SELECT job_id, count(*) FROM convertly_data.jobs__results GROUP BY 1"))
    jobs = query("SELECT id, status FROM convertly_data.jobs ORDER BY id")
    loaded = [(key, (status, results.pop(key, 0))) for key, status in jobs]
    assert loaded == sorted(expected(account).items())
    assert not results


def test_a_load_alone_takes_one_attempt(api: DemoAPI, tmp_path: Path, pauses: list[float]) -> None:
    """Without another load it returns what the load returns, and stores nothing of its own."""
    assert Machine(api, tmp_path / "one").load_alone() == 1
    assert_equal(api.account)
    states = query("SELECT count(*) FROM convertly_data._dlt_pipeline_state")
    loads = query("SELECT count(*) FROM convertly_data._dlt_loads")
    assert states == loads
    assert not pauses


def test_another_load_in_between_is_made_good(
    api: DemoAPI, tmp_path: Path, pauses: list[float]
) -> None:
    """It loads again from where it began, so what the two have spoiled is right again."""
    one, two = Machine(api, tmp_path / "one"), Machine(api, tmp_path / "two")
    assert one.load_alone() == 1
    changed = api.account.unfinished()
    for job in changed:
        api.account.finish(job)
    ids = tuple(job["id"] for job in [*changed, api.account.create()])

    def interfere() -> None:
        one.meanwhile = lambda: None
        two.load_once()
        # What one of two writes last may be what it was answered first.
        query(f"UPDATE convertly_data.jobs SET status = 'pending' WHERE id IN {ids}")
        query(f"DELETE FROM convertly_data.jobs__results WHERE job_id IN {ids}")

    one.meanwhile = interfere
    assert one.load_alone() == 3
    assert len(pauses) == 1
    assert pauses[0] >= 0
    assert_equal(api.account)


@pytest.mark.covers
def test_a_failure_beside_another_load_is_tried_again(
    api: DemoAPI, tmp_path: Path, pauses: list[float]
) -> None:
    """A load that fails while another one came in between is tried again, not reported."""
    one, two = Machine(api, tmp_path / "one"), Machine(api, tmp_path / "two")

    def fail() -> None:
        one.meanwhile = lambda: None
        two.load_once()
        raise OSError("deadlock detected")

    one.meanwhile = fail
    assert one.load_alone() == 2
    assert len(pauses) == 1
    assert_equal(api.account)


@pytest.mark.covers
def test_a_failure_that_lasts_is_raised_at_once(
    api: DemoAPI, tmp_path: Path, pauses: list[float]
) -> None:
    """A refused key is not tried again, though another load came in between; the next one heals."""
    one, two = Machine(api, tmp_path / "one"), Machine(api, tmp_path / "two")
    assert one.load_alone() == 1
    began = stored(tmp_path / "before")
    api.account.create()

    def fail() -> None:
        two.load_once()
        raise SettingsError("The API refused the key.", "Set another one.")

    one.meanwhile = fail
    with pytest.raises(SettingsError):
        one.load_alone()
    assert (one.attempts, pauses) == (2, [])
    assert stored(tmp_path / "after") == began
    one.meanwhile = lambda: None
    one.load_alone()
    assert_equal(api.account)


def test_a_failure_alone_is_raised(api: DemoAPI, tmp_path: Path, pauses: list[float]) -> None:
    """Without another load a failure is the caller's, and what was loaded is kept."""
    one = Machine(api, tmp_path / "one")

    def fail() -> None:
        raise OSError("disk full")

    one.meanwhile = fail
    with pytest.raises(OSError, match="disk full"):
        one.load_alone()
    assert (one.attempts, pauses) == (1, [])
    loaded = query("SELECT count(*) FROM convertly_data.jobs")[0][0]
    assert 0 < loaded < 150
    one.meanwhile = lambda: None
    one.load_alone()
    assert_equal(api.account)


def test_a_destination_that_goes_away_is_reported(api: DemoAPI, tmp_path: Path) -> None:
    """A file that a reader holds during the load is an error that a person can act on."""
    one = Machine(api, tmp_path / "one")
    with ExitStack() as stack:
        one.meanwhile = lambda: stack.enter_context(held(Path("convertly.duckdb")))
        with pytest.raises(DestinationConnectionError) as failed:
            one.load_alone()
    known = explained(failed.value)
    assert "Could not set lock" in str(known)
    one.meanwhile = lambda: None
    one.load_alone()
    assert_equal(api.account)


def test_others_all_the_time_are_reported(
    api: DemoAPI, tmp_path: Path, pauses: list[float]
) -> None:
    """After some attempts, each with another load in between, it says so; the next heals all."""
    one, two = Machine(api, tmp_path / "one"), Machine(api, tmp_path / "two")
    one.meanwhile = two.load_once
    with pytest.raises(BusyError, match="Another load into convertly_data of duckdb"):
        one.load_alone()
    assert (one.attempts, len(pauses)) == (3, 3)
    one.meanwhile = lambda: None
    one.load_alone()
    assert_equal(api.account)


@pytest.mark.covers
def test_the_place_where_it_began_is_stored(api: DemoAPI, tmp_path: Path) -> None:
    """Should it never come to its end, whoever loads next begins where it began."""
    one, two = Machine(api, tmp_path / "one"), Machine(api, tmp_path / "two")
    assert one.load_alone() == 1
    api.account.create()
    one.meanwhile = two.load_once
    began = stored(tmp_path / "before")
    with pytest.raises(BusyError):
        one.load_alone()
    assert stored(tmp_path / "after") == began


def stored(folder: Path) -> Any:
    """Return the state of the source that is stored."""
    pipeline = TARGET.pipeline(folder)
    restore(pipeline)
    return pipeline.state["sources"]
