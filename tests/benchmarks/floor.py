"""Measure a first load beside DuckDB's own reading of the same bodies, and beside arrow tables.

python tests/benchmarks/floor.py [--size 100000] [--latency 0] [--runs 3]
"""

import argparse
import pickle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import orjson
import requests
from dlt.common.normalizers.naming.snake_case import NamingConvention
from peers import CACHE, HERE, PEERS, Load, Peer, environment_of, load, write
from server import Server, serving

from convertly_source.reading.job import ListedJob
from convertly_source.tables.records import RecordMapper

CONNECTOR = PEERS["connector"]
CONTENDERS = {
    "this connector": CONNECTOR,
    "dlt alone, of its records": CONNECTOR._replace(
        command=["{python}", f"{HERE}/peers/records.py"]
    ),
    "arrow tables of its records": CONNECTOR._replace(
        command=["{python}", f"{HERE}/peers/arrow.py", "records"]
    ),
    "arrow tables of columns, one shape only": CONNECTOR._replace(
        command=["{python}", f"{HERE}/peers/arrow.py", "columns"]
    ),
    "DuckDB's `read_json`, of files": CONNECTOR._replace(
        command=["{python}", f"{HERE}/peers/read_json.py"]
    ),
    "`import dlt`, and nothing else": Peer(
        ["{python}", "-c", "import dlt"], CONNECTOR.requirements, "", ""
    ),
}


def bodies(server: Server) -> list[bytes]:
    """Fetch all pages."""
    found: list[bytes] = []
    has_more = True
    while has_more:
        url = f"{server.url}/api/jobs?limit=100&offset={100 * len(found)}"
        answer = requests.get(url, headers={"Authorization": f"Bearer {server.key}"}, timeout=60)
        found.append(answer.content)
        has_more = answer.json()["pagination"]["hasMore"]
    return found


def write_records(pages: list[bytes], file: Path) -> None:
    """Write what the connector makes of the bodies: the number of pages, and each of them."""
    shape = RecordMapper(NamingConvention().normalize_identifier)
    with file.open("wb") as stream:
        pickle.dump(len(pages), stream)
        for page in pages:
            records = [shape.job_record(ListedJob.parse(job)) for job in orjson.loads(page)["jobs"]]
            pickle.dump(records, stream)


def first_load(peer: Peer, server: Server, pages: list[bytes], size: int) -> Load:
    """Load into an empty folder that has the bodies, and the records made of them, at hand."""
    with TemporaryDirectory() as folder:
        write_records(pages, Path(folder, "records.pickle"))
        for number, page in enumerate(pages):
            path = Path(folder, "bodies", f"{number:06}.json")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(page)
        server.show(size, OPTIONS.latency)
        done = load(
            peer, environment_of(peer, OPTIONS.environments), Path(folder), server, OPTIONS.latency
        )
    if done.wrong:
        raise SystemExit(done.wrong)
    return done


def main() -> None:
    """Measure, in turn, and write the medians."""
    loads: dict[str, list[Load]] = {name: [] for name in CONTENDERS}
    with serving(OPTIONS.size) as server:
        pages = bodies(server)
        for _ in range(OPTIONS.runs):
            for name, peer in CONTENDERS.items():
                loads[name].append(first_load(peer, server, pages, OPTIONS.size))
                print(name, loads[name][-1], flush=True)
    cpu = {name: median(load.cost.cpu_seconds for load in of) for name, of in loads.items()}
    floor = cpu["DuckDB's `read_json`, of files"]
    lines = [
        f"| {OPTIONS.size:,} jobs, {OPTIONS.latency} ms | CPU s | times | wall s | MB |",
        "| --- |" + " ---: |" * 4,
    ]
    for name, of in loads.items():
        wall = median(load.cost.wall_seconds for load in of)
        megabytes = median(load.cost.megabytes for load in of)
        times = cpu[name] / floor
        lines.append(f"| {name} | {cpu[name]:.2f} | {times:.1f} | {wall:.2f} | {megabytes:.0f} |")
    write("floor", lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100_000, help="jobs")
    parser.add_argument("--latency", type=int, default=0, help="ms a request")
    parser.add_argument("--runs", type=int, default=3, help="loads of each")
    parser.add_argument("--environments", type=Path, default=CACHE, help="a folder")
    OPTIONS = parser.parse_args()
    main()
