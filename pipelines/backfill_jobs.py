"""Load the history of a Convertly account window by window, into a destination of dlt.

A run that was killed goes on with the window it was in. The exit codes are those of load_jobs.py.
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import dlt
from load_jobs import Parser, Progress, access, run, target

from convertly_source.loading.backfill import (
    Place,
    Window,
    count_listed,
    count_loaded,
    finish,
    load,
    plan,
    window,
)
from convertly_source.loading.loads import configure


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser("Load the history of a Convertly account in windows.")
    add = parser.add_argument
    add("--start", help="oldest created_at to load (default: the day of the oldest job; UTC)")
    add("--end", help="created_at to load up to, not included (default: behind the newest job)")
    add("--days", type=float, default=7, help="days of a window (default: %(default)s)")
    return parser.parse_args(arguments)


def backfill(options: argparse.Namespace, rows: Counter[str]) -> None:
    """Load the windows that are still to be loaded, the oldest first, and compare."""
    configure(options.destination)
    with access(demo=options.demo) as settings:
        place = Place(options.destination, options.dataset, settings)
        windows = plan(place, options.start, options.end, options.days)
        whole = Window(windows[0].start, windows[-1].end)
        notes = Notes(place, whole.start)
        ahead = Window(notes.loaded_until, whole.end)
        progress = Progress(total=count_listed(place.listing(), ahead))
        for number, part in enumerate(windows, 1):
            if part.end > notes.loaded_until:
                new = load(part, place, progress)
                rows.update(new)
                notes.note(part.end)
                print(f"{number} of {len(windows)}: {said(part, new)}", flush=True)
        done = finish(whole, place)
        notes.note(whole.start)  # the next run loads all windows again
    print(f"All {done.jobs:,} jobs of these windows are in {notes.target}. Go on with:")
    given = [f"--{name}={getattr(options, name)}" for name in ("destination", "dataset")]
    given += ["--demo"] if options.demo else []
    given += [f"--start-date={done.start_date.isoformat()}"]
    print(f"  python pipelines/load_jobs.py {shlex.join(given)}")


def said(part: Window, rows: Counter[str]) -> str:
    """Say what was loaded of a window."""
    start, end = (f"{moment:%Y-%m-%d %H:%M}" for moment in part)
    return f"{start} to {end}, {rows['jobs']:,} jobs and {rows['jobs__results']:,} results"


class Notes:
    """How far a backfill has come: in dlt's folder of pipelines, until it has come to its end.

    They are believed if the warehouse still holds as many jobs as the account up to there.
    """

    def __init__(self, place: Place, start: datetime) -> None:
        self._state, self._start = dlt.pipeline("convertly_backfill"), start
        self.loaded_until = start
        with place.pipeline() as pipeline:
            self.target = target(pipeline)
            with suppress(KeyError):
                loaded = window(*self._state.get_local_state_val(self.target))
                is_there = count_loaded(pipeline, loaded) >= count_listed(place.listing(), loaded)
                if loaded.start == start and is_there:
                    self.loaded_until = loaded.end

    def note(self, end: datetime) -> None:
        """Note that all windows up to there are loaded; up to the start, and nothing is."""
        self._state.set_local_state_val(
            self.target, [moment.isoformat() for moment in (self._start, end)]
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, and return the exit code."""
    return run(lambda rows: backfill(parse(arguments), rows))


if __name__ == "__main__":
    sys.exit(main())
