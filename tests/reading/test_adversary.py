"""Accounts that move between any two requests are read without a loss, in every life.

ADVERSARY_LIVES sets how many lives of each world are tried, ADVERSARY_FIRST the first of them.
"""

import os

import pytest
from helpers.adversary import Pool, lives

from convertly_source.reading import pages

FIRST = int(os.environ.get("ADVERSARY_FIRST", "0"))
SMALL = (
    *("mild", "base", "stable", "ties", "ties_stable", "purge", "bulkadd", "deletes", "starts"),
    *("total1", "totalstale", "replica", "statuslag", "late", "future", "reopen"),
)
LARGE = ("mild100", "page100", "ties300", "heavy_at_1", "heavy_at_5", "heavy_at_20", "heavy_at_40")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer requests that are under way in any order, but the same for the same seed."""
    monkeypatch.setattr(pages, "ThreadPoolExecutor", Pool)


def live(world: str, count: int) -> None:
    """Live some lives, and report the first that goes wrong."""
    count = int(os.environ.get("ADVERSARY_LIVES", count))
    for life in lives(world, count, FIRST):
        assert not life.failures, (life.seed, life.world, life.story)


@pytest.mark.parametrize("world", SMALL)
def test_nothing_is_lost_in_a_small_world(world: str) -> None:
    """With pages of 5 to 12 jobs, ten times as much happens on each as on real accounts."""
    live(world, 5)


@pytest.mark.slow
@pytest.mark.parametrize("world", LARGE)
def test_nothing_is_lost_in_a_large_world(world: str) -> None:
    """With pages of 100 jobs, at all rates of creation, nothing is lost."""
    live(world, 3)
