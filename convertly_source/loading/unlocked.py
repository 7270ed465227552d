"""Loads into a destination that has no lock: alone, or again."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import dlt
from dlt.common.exceptions import TerminalException
from dlt.common.runtime.collector_base import Collector

from convertly_source.errors import BusyError, explained
from convertly_source.loading.target import (
    Target,
    commit_state,
    count_rows,
    describe,
    kept_open,
    restore,
    using,
)

MAX_ATTEMPTS = 5
MAX_PAUSE = 600  # seconds

T = TypeVar("T")


def load_alone(
    target: Target,
    folder: Path,
    progress: Collector,
    load: Callable[[dlt.Pipeline], T],
) -> T:
    """Return what `load` returns, once no other load has come in between.

    If `_dlt_loads` shows that another load came in between, the two may have spoiled each other's
    rows. This one then goes back to the state it began with, commits that in case it is killed, and
    loads again; so the load that commits last reads again all that was spoiled. Raise `BusyError`
    if others load all the time.
    """
    began: dict[str, Any] = {}
    seconds = 1.0
    for attempt in range(MAX_ATTEMPTS):
        started = time.monotonic()
        with using(target):
            pipeline = target.fresh_pipeline(folder, progress)
            with kept_open(pipeline):
                loads_before = count_rows(pipeline, "_dlt_loads")
                restore(pipeline)
            own_before = _count_loaded(pipeline)
        if attempt == 0:
            began.update(deepcopy(pipeline.state.get("sources", {})))
        failure: Exception | None = None
        try:
            result = load(pipeline)
        except Exception as error:  # noqa: BLE001 - such as a conflict with the other load
            failure = error
        own = _count_loaded(pipeline) - own_before
        is_alone = True
        with suppress(*(Exception,) if failure else ()):  # the destination may be away
            is_alone = count_rows(pipeline, "_dlt_loads") == loads_before + own
        if failure and is_alone:
            raise failure
        if is_alone:
            return result
        with using(target):
            pipeline = target.fresh_pipeline(folder, progress)
            restore(pipeline)
            commit_state(pipeline, lambda state: state.update(sources=deepcopy(began)))
        if failure and isinstance(explained(failure), TerminalException):
            raise failure
        seconds = min(2 * max(seconds, time.monotonic() - started), MAX_PAUSE)
        time.sleep(random.uniform(0, seconds))  # noqa: S311 - else two would go on together
    raise BusyError(describe(pipeline))


def _count_loaded(pipeline: dlt.Pipeline) -> int:
    """Return how many packages in the working folder were loaded; one may have been refused."""
    packages = map(pipeline.get_load_package_info, pipeline.list_completed_load_packages())
    return sum(package.state == "loaded" for package in packages)
