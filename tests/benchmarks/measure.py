"""Run a command, and print what it cost: its processes, with those that it waited for.

This is a program of its own because it is small: a process counts the memory of the one that
started it as its own peak.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LOG = "load.log"


class Cost(NamedTuple):
    """What a command took. Memory is the peak of its largest process."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    megabytes: float


def measured(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command in a folder; what it says goes to `load.log` there."""
    # As at a user's: with compiled modules, and none of this project's settings.
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    done = subprocess.run(
        [sys.executable, "-S", __file__, *command],
        cwd=folder,
        env=inherited | dict(environment),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Cost(*json.loads(done.stdout))


def main(command: Sequence[str]) -> None:
    """Run and print."""
    with Path(LOG).open("a") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    print(json.dumps([process.returncode, seconds, cpu, usage.ru_maxrss / 1024]))


if __name__ == "__main__":
    main(sys.argv[1:])
