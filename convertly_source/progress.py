"""The progress that the command line shows."""

import sys
import time

from dlt.common.runtime.collector_base import Collector
from tqdm import tqdm


class Progress(Collector):
    """A bar of the jobs read on a terminal, a plain line every few seconds elsewhere.

    `total` is for several loads together; the total of a single one comes from the source.
    """

    def __init__(self, seconds_between_lines: float = 5, total: int | None = None) -> None:
        self._bar = tqdm(desc="Jobs", unit=" jobs", disable=not sys.stderr.isatty(), leave=False)
        self._total = total
        self._count = 0
        self._seconds_between_lines = seconds_between_lines
        self._next_line = time.monotonic()

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,  # noqa: ARG002 - dlt's interface
        message: str | None = None,  # noqa: ARG002
        label: str | None = None,  # noqa: ARG002
    ) -> None:
        """Count jobs; the counters of dlt itself are left out."""
        if name != "Jobs read" or not inc:
            return
        self._count += inc
        self._bar.total = max(self._total or total or 0, self._count)
        self._bar.update(inc)
        if self._bar.disable and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._seconds_between_lines
            print(f"{self._count:,} of {self._bar.total:,} jobs read", file=sys.stderr)

    def _start(self, step: str) -> None:
        self._bar.set_description(step.partition(" in ")[0])

    def _stop(self) -> None:
        self._bar.refresh()
