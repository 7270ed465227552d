"""Measure what `verify` costs: a large account over HTTP into DuckDB, equal and with differences.

    python tests/benchmarks/verify.py [jobs]

Ten rows are lost in the warehouse; five jobs that have ended change their status, five are deleted.
"""

import os
import random
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.loading import Target, load_account, verify_account

OTHER = {"completed": "failed", "failed": "completed"}


def main(size: int) -> None:
    """Load, then verify: equal, with 20 differences, after a purge, and all of it."""
    api = DemoAPI(DemoAccount(size, every=timedelta(minutes=1)), order=lambda jobs: jobs[::-1])
    account = api.account
    for job in account.unfinished():
        account.finish(job)
    with TemporaryDirectory() as folder, api.serve():
        os.chdir(folder)
        os.environ["DLT_DATA_DIR"] = folder
        settings: dict[str, Any] = {"api_key": DEMO_KEY, "base_url": api.url}
        load_account(Target(), convertly_source(**settings))

        def measure(what: str, *, read_all: bool = False) -> None:
            started = time.monotonic()
            result = verify_account(Target(), convertly_source(**settings), read_all=read_all)
            print(f"{what}: {time.monotonic() - started:.1f} s, {result}", flush=True)

        measure("equal")
        chance = random.Random(0)
        jobs = chance.sample(account.jobs, 20)
        with duckdb.connect("convertly.duckdb") as connection:
            ids = [job["id"] for job in jobs[:10]]
            connection.execute(f"DELETE FROM convertly_data.jobs WHERE id IN {tuple(ids)}")
        for job in jobs[10:15]:
            job["status"] = OTHER[job["status"]]
        for job in jobs[15:]:
            account.cancel(job)
        measure("20 differences")
        del account.jobs[: size // 2]
        measure("half purged")
        measure("all read", read_all=True)
        with duckdb.connect("convertly.duckdb") as connection:
            listed = "SELECT id, status FROM convertly_data.jobs ANTI JOIN"
            held = connection.execute(f"{listed} convertly_data.removed_jobs USING (id)").fetchall()
        assert sorted(held) == sorted((job["id"], job["status"]) for job in account.jobs)
    print(f"{Path(__file__).name}: equal to the account, {len(held):,} jobs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
