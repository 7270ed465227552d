"""Loads that are killed or interrupted, in processes of their own: nothing is lost or doubled."""

import random
import re
import signal
import subprocess
from collections.abc import Callable
from threading import Event

import pytest
from helpers.script import access, content, listed, load_from, started

from convertly_source.demo import DemoAccount, DemoAPI

Serve = Callable[..., DemoAPI]
pytestmark = pytest.mark.slow


def start_load(api: DemoAPI, pages: int) -> "subprocess.Popen[str]":
    """Start a load of the account of `api`, in chunks."""
    return started("load", f"--chunk-pages={pages}", **access(api))


def test_ctrl_c_tells_what_is_loaded(serve: Serve) -> None:
    """Interrupted while the API keeps it waiting, a load ends at once; the next one continues."""
    api = serve(DemoAccount(1500))
    process = start_load(api, 3)
    is_over = Event()

    def keep_waiting(_: dict[str, str]) -> None:
        if len(api.requests) == 12:  # the first chunks are loaded
            process.send_signal(signal.SIGINT)
        if len(api.requests) >= 12:
            is_over.wait()

    api.fault = keep_waiting
    _, errors = process.communicate(timeout=50)  # a request would time out after 60 seconds
    is_over.set()
    api.fault = lambda _: None
    *_, first, second = errors.splitlines()
    stopped = re.fullmatch(r"Stopped. At least ([\d,]+) jobs of this run are loaded.", first)
    assert stopped
    assert 0 < int(stopped[1].replace(",", "")) <= len(content())
    assert second == "Nothing is lost: the next run continues from there."
    assert process.returncode == 1
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)


def test_ctrl_c_at_any_moment_loses_nothing(serve: Serve) -> None:
    """Interrupted in extract, normalize or load, again and again, nothing is lost or doubled."""
    chance = random.Random(0)
    api = serve(DemoAccount(1500))
    for _ in range(4):
        has_begun = Event()
        api.before_answer = lambda _, has_begun=has_begun: has_begun.set()  # type: ignore[misc]
        process = start_load(api, 3)
        if not has_begun.wait(50):
            process.kill()
            pytest.fail("\n".join(process.communicate()))
        try:
            process.communicate(timeout=chance.uniform(0, 3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=50)
            is_done = process.returncode in (0, -signal.SIGINT)  # after its last line
            assert is_done or "Stopped. " in errors, errors
            assert "Traceback" not in errors
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)


def test_a_kill_after_a_chunk_keeps_the_chunk(serve: Serve) -> None:
    """What was loaded before the kill is not read again by the next run."""
    api = serve(DemoAccount(2500))
    process = start_load(api, 3)

    def kill_in_third_chunk(_: DemoAccount) -> None:
        if len(api.requests) == 16:  # with 4 ahead, the third chunk is being read
            process.kill()

    api.before_answer = kill_in_third_chunk
    process.communicate()
    api.before_answer = lambda _: None
    loaded = len(content())
    assert loaded >= 300
    api.requests.clear()
    assert load_from(api).returncode == 0
    assert content() == listed(api.account)
    assert len(api.requests) <= (2500 - loaded) // 99 + 2 * 5 + 4
