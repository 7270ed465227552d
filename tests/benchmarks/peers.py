"""Load the same account with this connector and with what a user would pick instead, in turn.

    python tests/benchmarks/peers.py [--sizes 1000 20000] [--latencies 0 100] [--runs 3]

Each load is a process of its own, in an empty folder, and so is the API. First all jobs are
loaded, then 30 new ones. What is loaded is compared with the account before a figure counts. The
medians go into README.md. The peers are installed once, each into an environment of its own.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from measure import LOG, Cost, measured
from server import Server, serving

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README = HERE / "README.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "convertly-source-peers"
NEW = 30  # jobs, for the second run
LARGE = 100_000  # jobs: one run, and not at every latency, or it would take hours
CONNECTIONS = 8  # of this connector, where requests take time; else its default
DLT = [f"duckdb=={version('duckdb')}", f"dlt=={version('dlt')}", "sqlglot<30.22"]
CHILDREN = "SELECT count(*) FROM data.jobs__results"


class Peer(NamedTuple):
    """How to start a load, what it needs, and how its results are counted."""

    command: list[str]  # of {python}, or of the programs in {bin}
    requirements: list[str]
    results: str
    says: str


PEERS = {
    "connector": Peer(
        ["{python}", f"{HERE}/peers/connector.py"],
        ["-e", str(ROOT), *DLT],
        CHILDREN,
        "`convertly_source()` in a pipeline of a user's own",
    ),
    "load_jobs": Peer(
        ["{python}", f"{ROOT}/pipelines/load_jobs.py", "--dataset", "data"],
        ["-e", str(ROOT), *DLT],
        CHILDREN,
        "`pipelines/load_jobs.py`",
    ),
    "rest_api": Peer(
        ["{python}", f"{HERE}/peers/rest_api.py"],
        ["dlt[duckdb]", *DLT],
        CHILDREN + "__files",
        "dlt's generic `rest_api` source, with dlt's defaults",
    ),
    "rest_api_parquet": Peer(
        ["{python}", f"{HERE}/peers/rest_api.py", "parquet"],
        ["dlt[duckdb,parquet]", *DLT],
        CHILDREN + "__files",
        "the same, through parquet files",
    ),
    "rest_api_duckdb_2": Peer(
        ["{python}", f"{HERE}/peers/rest_api.py"],
        ["dlt[duckdb]", "duckdb==2.0.1", DLT[1]],
        CHILDREN + "__files",
        "the generic source with dlt's defaults, and the DuckDB that pip takes for it",
    ),
    "script": Peer(
        ["{python}", f"{HERE}/peers/script.py"],
        ["requests", DLT[0]],
        "SELECT sum(len(results.files)) FROM data.jobs",
        "a script with requests and DuckDB",
    ),
    "singer": Peer(
        ["sh", f"{HERE}/peers/singer.sh", "{bin}", f"{HERE}/peers/tap.py"],
        ["singer-sdk", "requests", "target-duckdb==0.8.0", "duckdb==1.2.2"],
        "SELECT sum(json_array_length(results, '$.files')) FROM data.jobs",
        "a Singer tap and target-duckdb",
    ),
}


class Load(NamedTuple):
    """One load, checked."""

    cost: Cost
    requests: int
    wrong: str  # what is, if anything


Results = dict[tuple[int, int, str], list[tuple[Load, Load]]]  # by size, latency and peer


def environment_of(peer: Peer, folder: Path) -> Path:
    """Install what a peer needs, unless that is done; return the folder of its programs."""
    key = hashlib.sha256(f"{sys.version} {peer.requirements}".encode()).hexdigest()[:12]
    place = folder / key
    done = place / "done"
    if not done.exists():
        print(f"Installing {' '.join(peer.requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-qq", "--compile"]
        subprocess.run([*pip, *peer.requirements], check=True)
        done.touch()
    return place / "bin"


def environment(server: Server, folder: Path) -> dict[str, str]:
    """Return the variables by which each peer finds the API, and where it loads to."""
    return {
        "API_KEY": server.key,
        "API_URL": server.url,
        "CONVERTLY_API_KEY": server.key,
        "CONVERTLY_BASE_URL": server.url,
        "DESTINATION__DUCKDB__CREDENTIALS": str(folder / "peer.duckdb"),
        "DLT_DATA_DIR": str(folder / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",  # it would leave this machine
    }


def load(peer: Peer, programs: Path, folder: Path, server: Server, latency_ms: int) -> Load:
    """Load what the server shows, and compare."""
    variables = environment(server, folder)
    if latency_ms:
        variables["SOURCES__CONVERTLY__MAX_CONNECTIONS"] = str(CONNECTIONS)
    names = {"python": str(programs / "python"), "bin": str(programs)}
    cost = measured([part.format(**names) for part in peer.command], folder, variables)
    facts = server.facts()
    return Load(cost, facts.pop("requests"), wrong(peer, programs, folder, facts, cost))


def wrong(peer: Peer, programs: Path, folder: Path, expected: dict[str, object], cost: Cost) -> str:
    """Say what is wrong with a load; empty when all is right."""
    if cost.exit_code:
        log = (folder / LOG).read_text().strip().splitlines()
        errors = [line for line in log if "Error" in line or "Exception" in line] or log
        return f"ended with {cost.exit_code}: {' '.join(errors[-1:])}"
    if not peer.results:  # it only reads
        return ""
    count = [str(programs / "python"), str(HERE / "peers" / "count.py"), peer.results]
    found = json.loads(subprocess.run(count, cwd=folder, capture_output=True, check=True).stdout)
    return "" if found == expected else f"{found} instead of {expected}"


def compare(options: argparse.Namespace) -> Results:
    """Run all, A B A B."""
    programs = {name: environment_of(PEERS[name], options.environments) for name in options.peers}
    results: Results = defaultdict(list)
    with serving(max(options.sizes) + NEW) as server:
        for size in options.sizes:
            for latency in options.latencies:
                if size >= LARGE and latency not in (options.latencies[0], options.latencies[-1]):
                    continue
                for _ in range(1 if size >= LARGE else options.runs):
                    for name in options.peers:
                        pair = first_and_second(PEERS[name], programs[name], server, size, latency)
                        results[size, latency, name].append(pair)
                        say(size, latency, name, pair)
    return results


def first_and_second(
    peer: Peer, programs: Path, server: Server, size: int, latency_ms: int
) -> tuple[Load, Load]:
    """Load an account into an empty folder, then what is new."""
    with TemporaryDirectory() as folder:
        server.show(size, latency_ms=latency_ms)
        first = load(peer, programs, Path(folder), server, latency_ms)
        server.show(size + NEW, latency_ms=latency_ms)
        return first, load(peer, programs, Path(folder), server, latency_ms)


def say(size: int, latency: int, name: str, pair: tuple[Load, Load]) -> None:
    """Print one pair of loads."""
    for what, (cost, requests, is_wrong) in zip(("first", "second"), pair, strict=True):
        print(
            f"{size:>7,} jobs, {latency:>3} ms, {name:17} {what:6} {cost.wall_seconds:7.2f} s, "
            f"CPU {cost.cpu_seconds:7.2f} s, {cost.megabytes:5.0f} MB, {requests:5} requests"
            f"{f'  WRONG: {is_wrong}' if is_wrong else ''}",
            flush=True,
        )


def table(results: Results) -> list[str]:
    """Give the medians as Markdown; what was wrong is shown as that, and its figures are not."""
    columns = "times | CPU s | MB | requests"
    lines = [
        f"| jobs | ms | | first: s | {columns} | {NEW} new: s | {columns} |",
        "| ---: | ---: | --- |" + " ---: |" * 10,
    ]
    for (size, latency, name), pairs in results.items():
        cells = []
        for which in (0, 1):
            base = medians(results.get((size, latency, "connector"), []), which)
            cells += figures(medians(pairs, which), base)
        mistakes = sum(bool(load.wrong) for pair in pairs for load in pair)
        mark = f" **{mistakes} of {2 * len(pairs)} wrong**" if mistakes else ""
        lines.append(f"| {size:,} | {latency} | {name}{mark} | {' | '.join(cells)} |")
    return lines


def medians(pairs: list[tuple[Load, Load]], which: int) -> tuple[float, ...]:
    """Give the median wall and CPU seconds, memory and requests of the loads that were right."""
    right = [pair[which] for pair in pairs if not pair[which].wrong]
    figures = [(*load.cost[1:], load.requests) for load in right]
    return tuple(median(of) for of in zip(*figures, strict=True))


def figures(of: tuple[float, ...], base: tuple[float, ...]) -> list[str]:
    """Show medians, the wall seconds also as a multiple of those of the connector."""
    if not of:
        return ["wrong", *"----"]
    seconds, cpu, megabytes, requests = of
    times = f"{seconds / base[0]:.1f}" if base else "-"
    return [f"{seconds:.2f}", times, f"{cpu:.2f}", f"{megabytes:.0f}", f"{requests:.0f}"]


def machine() -> str:
    """Describe what the figures were taken on."""
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {python}, dlt {version('dlt')}, DuckDB {version('duckdb')}"


def write(name: str, lines: list[str]) -> None:
    """Put lines between two markers of README.md."""
    text = README.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    new = re.sub(f"(?s){begin}.*?{end}", lambda _: f"{begin}{chr(10).join(lines)}\n{end}", text)
    README.write_text(new)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[1_000, 20_000, LARGE], help="jobs")
    add("--latencies", type=int, nargs="+", default=[0, 20, 100], help="ms a request")
    add("--runs", type=int, default=3, help=f"pairs of loads; from {LARGE:,} jobs on it is 1")
    add("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    add("--environments", type=Path, default=CACHE, help="a folder")
    add("--no-table", action="store_true", help="only print, leave README.md alone")
    return parser.parse_args()


def main() -> int:
    """Compare; the exit code is 1 when something was wrong."""
    options = parse()
    results = compare(options)
    lines = table(results)
    print("\n".join(lines))
    if not options.no_table:
        write("peers", [f"{machine()}.", "", *lines])
    return int(any(load.wrong for pairs in results.values() for pair in pairs for load in pair))


if __name__ == "__main__":
    sys.exit(main())
