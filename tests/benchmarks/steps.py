"""Measure where the CPU seconds of the script go: imports, reading, dlt's normalizer, loading.

    python tests/benchmarks/steps.py [--size 20000] [--runs 5]

Each load is a process of its own, in the environment of peers.py: all jobs, then 30 new ones.
Beside it stands what loading would take if a first load appended its rows instead of merging them.
The medians go into README.md.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import dlt
from peers import CACHE, NEW, PEERS, environment, environment_of, write
from server import Server, serving

from convertly_source import cli

IMPORTS, REST = "Python and imports", "all else: state, repair, counts, comments"
STEPS = {
    "extract": "reading: requests, JSON, rows, dlt's files",
    "normalize": "dlt's normalizer, which writes Parquet or INSERTs",
    "load": "loading: files into staging tables, and the merge",
}
APPENDED = "the same, if rows were appended"
Seconds = dict[str, float]


def load(*, is_appended: bool) -> Seconds:
    """Load in this process; return the CPU seconds of each step."""
    seconds = {IMPORTS: time.process_time()}

    def timed(step: str) -> Callable[..., Any]:
        original = getattr(dlt.Pipeline, step)

        @wraps(original)
        def run(pipeline: dlt.Pipeline, *arguments: Any, **more: Any) -> Any:
            if step == "extract" and is_appended:
                for resource in arguments[0].resources.values():
                    resource.apply_hints(write_disposition="append")
            begin = time.process_time()
            result = original(pipeline, *arguments, **more)
            name = STEPS[step]
            seconds[name] = seconds.get(name, 0) + time.process_time() - begin
            return result

        return run

    for step in STEPS:
        setattr(dlt.Pipeline, step, timed(step))
    cli.main(["load", "--dataset", "data"])
    seconds[REST] = time.process_time() - sum(seconds.values())
    return seconds


def load_elsewhere(programs: Path, server: Server, folder: Path, *arguments: str) -> Seconds:
    """Load in a process of its own; return the CPU seconds of each step."""
    command = [str(programs / "python"), str(Path(__file__).resolve()), "--load", *arguments]
    variables = environment(server, folder)
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=True)
    seconds: Seconds = json.loads(done.stdout.splitlines()[-1])
    print(*arguments, {step: round(figure, 2) for step, figure in seconds.items()}, flush=True)
    return seconds


def measure(programs: Path, server: Server, size: int, runs: int) -> list[str]:
    """Load an account, and what is new, some times; return the table."""
    first, later, appended = list[Seconds](), list[Seconds](), list[Seconds]()
    for _ in range(runs):
        with TemporaryDirectory() as folder, TemporaryDirectory() as other:
            server.show(size)
            first.append(load_elsewhere(programs, server, Path(folder)))
            appended.append(load_elsewhere(programs, server, Path(other), "--append"))
            server.show(size + NEW)
            later.append(load_elsewhere(programs, server, Path(folder)))
    lines = [f"| CPU seconds | {size:,} jobs | {NEW} new |", "| --- | ---: | ---: |"]
    for step in (IMPORTS, *STEPS.values(), REST):
        cells = [f"{median(one[step] for one in loads):.2f}" for loads in (first, later)]
        lines.append(f"| {step} | {' | '.join(cells)} |")
        if step == STEPS["load"]:
            lines.append(f"| {APPENDED} | {median(one[step] for one in appended):.2f} | |")
    return lines


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=20_000, help="jobs")
    parser.add_argument("--runs", type=int, default=5, help="loads of each kind")
    parser.add_argument("--environments", type=Path, default=CACHE, help="a folder")
    parser.add_argument("--load", action="store_true", help="load in this process, and print")
    parser.add_argument("--append", action="store_true", help="append the rows")
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(is_appended=options.append)))
        return
    programs = environment_of(PEERS["load_jobs"], options.environments)
    with serving(options.size + NEW) as server:
        lines = measure(programs, server, options.size, options.runs)
    print("\n".join(lines))
    write("steps", lines)


if __name__ == "__main__":
    main()
