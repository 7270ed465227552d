"""Measure the peak memory of loading 5,000 and 50,000 jobs with pipelines/load_jobs.py.

Run it: python tests/benchmarks/memory.py [--chunk-pages N]. The account is served by this process,
the load is a process of its own, in a folder that is removed afterwards.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "load_jobs.py"


def peak_megabytes(size: int, arguments: list[str]) -> float:
    """Load an account of that size into an empty folder; return the peak resident memory."""
    with DemoAPI(DemoAccount(size)).serve() as api, TemporaryDirectory() as folder:
        settings = {
            "CONVERTLY_API_KEY": DEMO_KEY,
            "CONVERTLY_BASE_URL": api.url,
            "DLT_DATA_DIR": folder,
        }
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            cwd=folder,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"The load ended with {process.returncode}.")
        print(f"{size:>7,} jobs: {usage.ru_maxrss / 1024:6.0f} MB, {len(api.requests)} requests")
        return usage.ru_maxrss / 1024


def main() -> None:
    """Measure a small and a large load, and what the large one takes more."""
    small, large = (peak_megabytes(size, sys.argv[1:]) for size in (5_000, 50_000))
    print(f"The larger load takes {large - small:.0f} MB more.")


if __name__ == "__main__":
    main()
