"""Load a living account 200 times while one request in ten fails; then compare, jobs and results.

    python tests/benchmarks/soak.py [runs]

Each request may fail in another way: a 5xx, a rate limit, a reset, a body cut short or no JSON, an
answer that comes too late. The account creates, finishes and cancels jobs between the requests.
"""

import logging
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {
    "RUNTIME__REQUEST_TIMEOUT": "1",
    "RUNTIME__REQUEST_BACKOFF_FACTOR": "0.01",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "LOAD__TRUNCATE_STAGING_DATASET": "true",
}

from helpers.model import DuckDB, summary

from convertly_source.demo import DemoAccount, DemoAPI, Reply

NOW = {"Retry-After": "1"}
FAULTS = {
    **{str(status): Reply(status, {"error": "Busy."}) for status in (500, 502, 503, 504)},
    "429": Reply(429, {"error": "Slow down."}, NOW),
    "reset": Reply(0, "", is_reset=True),
    "cut short": Reply(200, "{", {"Content-Length": "99", "Connection": "close"}),
    "no JSON": Reply(200, '{"jobs": ['),
    "HTML": Reply(502, "<html>Bad gateway"),
    "late": Reply(503, {}),
}


def main(runs: int) -> None:
    """Run, and print what happened."""
    logging.disable(logging.WARNING)
    chance, faults = random.Random(0), Counter[str]()
    account = DemoAccount(2000)
    api = DemoAPI(account)

    def live(account: DemoAccount) -> None:
        for _ in range(chance.randint(0, 2)):
            account.create()
        for job in account.unfinished():
            if chance.random() < 0.1:
                chance.choice([account.progress, account.finish, account.finish])(job)
            elif chance.random() < 0.02:
                account.cancel(job)

    def fail(_: dict[str, str]) -> Reply | None:
        if chance.random() >= 0.1:
            return None
        name = chance.choice(list(FAULTS))
        faults[name] += 1
        if name == "late":
            time.sleep(1.5)
        return FAULTS[name]

    with TemporaryDirectory() as folder, api.serve():
        os.environ["DLT_DATA_DIR"] = folder
        warehouse = DuckDB(folder)
        api.before_answer, api.fault = live, fail
        lost = 0
        for _ in range(runs):
            there = {job["id"] for job in account.jobs}
            warehouse.run(api, page_size=chance.choice([20, 50, 100]), max_connections=4)
            lost += len((there & {job["id"] for job in account.jobs}) - set(warehouse.content()))
        requests = len(api.requests)
        api.before_answer, api.fault = lambda _: None, lambda _: None
        warehouse.run(api, page_size=100, max_connections=4)
        loaded, removed = warehouse.content(), set(warehouse.removed)
        present = {job["id"]: summary(job) for job in account.jobs}
        wrong = {key for key, expected in present.items() if loaded.get(key) != expected}
        unexplained = set(loaded) - set(present) - removed
    print(f"{runs} runs, {requests:,} requests, {sum(faults.values()):,} failed: {dict(faults)}")
    print(f"{len(present):,} jobs in the account, {len(loaded):,} loaded, {len(removed)} removed")
    print(f"{lost} lost on the way, {len(wrong)} wrong, {len(unexplained)} unexplained at the end")
    sys.exit(bool(lost or wrong or unexplained))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
