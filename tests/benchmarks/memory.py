"""Measure the peak memory of first loads with pipelines/load_jobs.py, which should stay flat.

    python tests/benchmarks/memory.py [--sizes 50000 300000]

Each account is loaded twice: with DuckDB as it is, which keeps what it has read and written in
memory up to a share of that of the machine, and with a limit on that. The figures go into
README.md.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from peers import CACHE, PEERS, environment_of, load, write
from server import Server, serving

LIMIT = "DESTINATION__DUCKDB__CREDENTIALS__GLOBAL_CONFIG", '{"memory_limit": "100MB"}'
SCRIPT = PEERS["load_jobs"]


def peak_megabytes(server: Server, size: int, programs: Path) -> float:
    """Load an account of that size into an empty folder; return the peak memory."""
    server.show(size)
    with TemporaryDirectory() as folder:
        done = load(SCRIPT, programs, Path(folder), server, latency_ms=0)
    if done.wrong:
        raise SystemExit(done.wrong)
    print(f"{size:>7,} jobs: {done.cost.megabytes:6.0f} MB", flush=True)
    return done.cost.megabytes


def main() -> None:
    """Measure all, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[5_000, 50_000, 300_000], help="jobs")
    add("--environments", type=Path, default=CACHE, help="a folder")
    options = parser.parse_args()
    programs = environment_of(SCRIPT, options.environments)
    lines = ["| jobs | peak MB | with `memory_limit` 100MB |", "| ---: | ---: | ---: |"]
    with serving(max(options.sizes)) as server:
        for size in options.sizes:
            free = peak_megabytes(server, size, programs)
            os.environ.update([LIMIT])
            limited = peak_megabytes(server, size, programs)
            del os.environ[LIMIT[0]]
            lines.append(f"| {size:,} | {free:.0f} | {limited:.0f} |")
    print("\n".join(lines))
    write("memory", lines)


if __name__ == "__main__":
    main()
