"""Measure how the cost of a run grows: with the jobs there are, and with what has changed.

    pip install vl-convert-python && python tests/benchmarks/growth.py

First loads with pipelines/load_jobs.py of 1,000 to 100,000 jobs, and the reading alone of up to
1,000,000. Then, in a history of 100,000 jobs, runs with 10 to 10,000 new jobs, runs after 1 to
1,000 older jobs have ended, scattered over all of it, and runs while 0 to 10,000 of them stay open:
some with nothing new, some with 3,600 new jobs, as an hour brings at one per second. The figures go
into README.md, and into growth.svg beside it.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
from peers import CACHE, HERE, PEERS, Load, environment_of, load, write
from server import Server, serving
from vl_convert import vegalite_to_svg

CHART = HERE / "growth.svg"
SCRIPT = PEERS["load_jobs"]
READER = SCRIPT._replace(command=["{python}", f"{HERE}/peers/extract.py"], results="")
READ, FIRST = "first load, only read, by jobs", "first load, by jobs"
NEW, ENDED = "later run, by new jobs", "later run, by older jobs that have ended"
OPEN, BUSY = "nothing new, by open jobs", "3,600 new jobs, by open jobs"
POWERS = [10**power for power in range(9)]
FIGURES = {"requests": "log", "CPU seconds": "log", "peak MB": "linear"}  # and their scales
Point = dict[str, Any]


def measure(server: Server, programs: Path, options: argparse.Namespace) -> list[Point]:
    """Take all measurements: a first load, and what comes after it, in a folder for each."""
    changes = options.changes
    history, hour_later = options.history, options.history + 3600
    stories = [
        *((READ, size, [(size, 0)]) for size in options.sizes),
        *((FIRST, size, [(size, 0)]) for size in options.sizes if size <= history),
        *((NEW, count, [(history, 0), (history + count, 0)]) for count in changes),
        *((ENDED, count // 10, [(history, count // 10), (history, 0)]) for count in changes),
        *((OPEN, count, [(history, count), (history, count)]) for count in options.open),
        *((BUSY, count, [(history, count), (hour_later, count)]) for count in options.open),
    ]
    points = []
    for run, count, shown in stories:
        with TemporaryDirectory() as folder:
            for jobs, pending in shown:
                server.show(jobs, pending=pending, among=min(jobs, history))
                peer = READER if run == READ else SCRIPT
                last = load(peer, programs, Path(folder), server, latency_ms=0)
            points.append(point(run, count, last, state_kilobytes(Path(folder))))
    return points


def state_kilobytes(folder: Path) -> float | None:
    """Return the size of the state that was stored last, None if nothing was loaded."""
    file = folder / "peer.duckdb"
    if not file.exists():
        return None
    with duckdb.connect(str(file)) as connection:
        sql = "SELECT length(state) FROM data._dlt_pipeline_state ORDER BY _dlt_load_id DESC"
        [length, *_] = connection.execute(sql).fetchall()[0]
        return round(int(length) / 1000, 1)


def point(run: str, count: int, load: Load, kilobytes: float | None) -> Point:
    """Print and return one measurement; a wrong one ends it all."""
    if load.wrong:
        raise SystemExit(f"{run}, {count:,}: {load.wrong}")
    figures = (load.requests, round(load.cost.cpu_seconds, 1), round(load.cost.megabytes))
    named = dict(zip(FIGURES, figures, strict=True))
    print(f"{run}: {count:,}: {named}", flush=True)
    return {"run": run, "count": count, **named, "state KB": kilobytes}


def draw(points: list[Point]) -> None:
    """Draw a small chart: a panel for each figure, over the number of jobs."""
    scales: dict[str, dict[str, Any]] = {
        "log": {"scale": {"type": "log"}, "axis": {"format": "~s", "values": POWERS}},
        "linear": {"axis": {"tickCount": 5}},
    }
    panels = [
        {
            "width": 190,
            "height": 170,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": scales["log"] | {"field": "count", "type": "quantitative", "title": "jobs"},
                "y": scales[scale] | {"field": name, "type": "quantitative"},
                "color": {"field": "run", "type": "nominal", "sort": None, "title": None},
            },
        }
        for name, scale in FIGURES.items()
    ]
    legend = {"legend": {"orient": "bottom", "columns": 2, "labelLimit": 400}}
    chart = {"data": {"values": points}, "hconcat": panels, "background": "white", "config": legend}
    CHART.write_text(vegalite_to_svg(chart))


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    sizes, changes = [10**3, 10**4, 10**5, 10**6], [10, 100, 1_000, 10_000]
    add("--sizes", type=int, nargs="+", default=sizes, help="jobs of the first loads")
    add(
        "--history",
        type=int,
        default=100_000,
        help="jobs before the later runs; more are not loaded, but read",
    )
    add("--changes", type=int, nargs="+", default=changes, help="new jobs; a tenth as many end")
    add("--open", type=int, nargs="+", default=[0, 1_000, 10_000], help="jobs that stay open")
    add("--environments", type=Path, default=CACHE, help="a folder")
    options = parser.parse_args()
    programs = environment_of(SCRIPT, options.environments)
    most = max(*options.sizes, options.history + max(*options.changes, 3600))
    with serving(most) as server:
        points = measure(server, programs, options)
    draw([point for point in points if point["run"] not in (OPEN, BUSY)])
    rows = [
        f"| {point['run']} | {point['count']:,} | {point['requests']:,} "
        f"| {point['CPU seconds']} | {point['peak MB']} | {point['state KB'] or ''} |"
        for point in points
    ]
    names = points[0].keys()
    write("growth", [f"| {' | '.join(names)} |", "| --- |" + " ---: |" * (len(names) - 1), *rows])


if __name__ == "__main__":
    main()
