"""Measure how the cost of a run grows: with the jobs there are, and with what changed.

    pip install altair vl-convert-python && python tests/benchmarks/growth.py

A first load of 1,000 to 1,000,000 jobs, the largest read only; then, in a history of 100,000, runs
with 10 to 10,000 new jobs, and with 1 to 1,000 older jobs that have ended, scattered over all of
it. The figures go into README.md, and into growth.svg beside it.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import altair
from measure import Cost, measured
from peers import PEERS, load, write
from server import Server, serving

HERE = Path(__file__).resolve().parent
CHART = HERE / "growth.svg"
EXTRACT = HERE / "peers" / "extract.py"
FIRST = "first load, by jobs"
NEW = "run with new jobs, by new jobs"
ENDED = "run with older jobs ended, by those"
Point = dict[str, Any]


def point(what: str, count: int, cost: Cost, requests: int) -> Point:
    """Print and return one measurement."""
    print(
        f"{what}: {count:,}: {requests:,} requests, CPU {cost.cpu_seconds:.1f} s, "
        f"{cost.megabytes:.0f} MB, {cost.wall_seconds:.1f} s",
        flush=True,
    )
    return {
        "run": what,
        "count": count,
        "requests": requests,
        "CPU seconds": round(cost.cpu_seconds, 2),
        "peak MB": round(cost.megabytes),
    }


def measure(server: Server, sizes: list[int], history: int, changes: list[int]) -> list[Point]:
    """Take all measurements; a wrong result ends it."""
    points = []
    run = partial(checked, server)
    for size in sizes:
        with TemporaryDirectory() as folder:
            server.show(size)
            is_largest = size == max(sizes) and len(sizes) > 1
            cost, requests = extracted(server, Path(folder)) if is_largest else run(Path(folder))
            points.append(point(FIRST, size, cost, requests))
    for count in changes:
        with TemporaryDirectory() as folder:
            server.show(history)
            run(Path(folder))
            server.show(history + count)
            points.append(point(NEW, count, *run(Path(folder))))
    for count in [number // 10 for number in changes]:
        with TemporaryDirectory() as folder:
            server.show(history, pending=count)
            run(Path(folder))
            server.show(history)
            points.append(point(ENDED, count, *run(Path(folder))))
    return points
