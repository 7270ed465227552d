"""Load the jobs of a Convertly account into DuckDB, or another destination of dlt.

Each run loads what has changed since the last one. Exit codes: 0 done; 2 the settings are wrong;
3 the API can't be reached or keeps failing; 4 it answered something that it does not document;
5 a quota or plan limit; 1 anything else.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

if not Path(".dlt").is_dir():  # settings come from the current folder, else from this project
    os.environ.setdefault("DLT_PROJECT_DIR", str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("DLT_LOCAL_DIR", str(Path.cwd()))

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.pipeline import LoadInfo
from dlt.common.runtime.collector_base import Collector
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import has_table_seen_data
from dlt.extract import DltSource
from tqdm import tqdm

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import SettingsError, explained
from convertly_source.loading.loads import configure, loaded_host, pipeline_into, restore
from convertly_source.tables.schema import TABLES

HINT = "SELECT job_type, status, count(*) AS jobs FROM {}.jobs GROUP BY 1, 2 ORDER BY 3 DESC"
CHILD_COLUMNS: dict[str, TColumnSchema] = {
    "_dlt_root_id": {
        "name": "_dlt_root_id",
        "data_type": "text",
        "nullable": False,
        "root_key": True,
    },
    "_dlt_parent_id": {
        "name": "_dlt_parent_id",
        "data_type": "text",
        "nullable": False,
        "parent_key": True,
    },
    "_dlt_list_idx": {"name": "_dlt_list_idx", "data_type": "bigint", "nullable": False},
    "_dlt_id": {
        "name": "_dlt_id",
        "data_type": "text",
        "nullable": False,
        "unique": True,
        "row_key": True,
    },
}
FOLDER = Path(__file__).resolve().parent
MODELS = ("job_facts", "daily_jobs", "format_savings", "failures")  # in the order of creation
EXPLORE = ("marimo", "altair")  # what explore_jobs.py is made with
INSTALL_EXPLORE = 'pip install -e ".[explore]"'
MODEL_DESTINATIONS = ("duckdb", "motherduck", "postgres")
DEMO_HOST = "127.0.0.1"


class Progress(Collector):
    """A bar of the jobs read on a terminal, a plain line every few seconds elsewhere.

    `total` is for several loads together; of a single one dlt says it.
    """

    def __init__(self, seconds_between_lines: float = 5, total: int | None = None) -> None:
        self._bar = tqdm(desc="Jobs", unit=" jobs", disable=not sys.stderr.isatty(), leave=False)
        self._total = total
        self._count, self._seconds, self._next_line = 0, seconds_between_lines, time.monotonic()

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
            self._next_line = time.monotonic() + self._seconds
            print(f"{self._count:,} of {self._bar.total:,} jobs read", file=sys.stderr)

    def _start(self, step: str) -> None:
        self._bar.set_description(step.partition(" in ")[0])

    def _stop(self) -> None:
        self._bar.refresh()


class Parser(argparse.ArgumentParser):
    """Takes the arguments; says what is wrong with them as every other setting does."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description)
        add = self.add_argument
        add("--demo", action="store_true", help="load a demo account; needs no key")
        add("--destination", default="duckdb", help="destination of dlt (default: %(default)s)")
        add("--dataset", default="convertly_data", help="dataset, a schema (default: %(default)s)")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise SettingsError(f"{message[:1].upper()}{message[1:]}.", "--help has the arguments.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser("Load the jobs of a Convertly account with dlt.")
    add = parser.add_argument
    add("--start-date", help="oldest created_at to load (included; UTC)")
    add("--end-date", help="created_at to load up to (not included): load just this window, again")
    add("--status", help="load only jobs that are pending, processing, completed or failed")
    add("--table-format", help="of --destination filesystem: delta (default) or iceberg")
    add("--models", action="store_true", help="make the views of pipelines/models in the dataset")
    add("--open", action="store_true", help="look at the jobs afterwards, in a browser")
    add("--full-refresh", action="store_true", help="drop tables and state, load all again")
    add("--chunk-pages", type=int, default=200, help="pages a load, 0: all (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.chunk_pages < 0:
        parser.error("--chunk-pages can't be negative")
    for name in ("models", "open"):
        if getattr(options, name) and options.destination not in MODEL_DESTINATIONS:
            parser.error(f"--{name} is for --destination {', '.join(MODEL_DESTINATIONS)}")
    if options.open and not can_explore():
        raise SettingsError(
            f"--open needs {' and '.join(EXPLORE)}.", f"Install them: {INSTALL_EXPLORE}"
        )
    options.models = options.models or options.open
    if options.destination == "filesystem":
        options.table_format = options.table_format or "delta"
    elif options.table_format:
        parser.error("--table-format is for --destination filesystem")
    return options


def load(options: argparse.Namespace, rows: Counter[str]) -> None:
    """Load the account and print what was done; `rows` counts what is loaded, by table."""
    configure(options.destination)
    with account(options) as source:
        jobs = source.resources["jobs"]
        if options.chunk_pages:
            jobs.add_limit(options.chunk_pages)
        pipeline = prepare(options, host=jobs.custom_metrics["host"])
        is_counted = not (options.full_refresh or options.table_format)
        before = count_jobs(pipeline) if is_counted else 0
        how: dict[str, Any] = {}
        if options.full_refresh:
            how["refresh"] = "drop_sources"
            replace_views(pipeline, create=False)  # they would hold the tables
        while True:
            info = pipeline.run(source, **how)
            how.pop("refresh", None)
            trace = pipeline.last_trace
            if info.loads_ids and trace and trace.last_normalize_info:
                rows.update(trace.last_normalize_info.row_counts)
            if before or options.table_format:
                say_what_is_new(info)
            if jobs.custom_metrics["is_complete"]:
                break
    print(f"{summary(pipeline, options, rows, before)}.\nThey are in {target(pipeline)}.", end="")
    print("" if options.table_format else f" Try:\n  {HINT.format(pipeline.dataset_name)}")
    if options.destination in MODEL_DESTINATIONS:
        install = "" if can_explore() else f"{INSTALL_EXPLORE} && "
        print(f"Look at them: {install}{shlex.join(explore(options))}", flush=True)


def can_explore() -> bool:
    """Whether the extra `explore` is installed."""
    return all(map(find_spec, EXPLORE))


def explore(options: argparse.Namespace) -> list[str]:
    """Say the command that opens explore_jobs.py on what was loaded."""
    file = FOLDER / "explore_jobs.py"
    if file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    command = ["marimo", "run", str(file)]
    chosen = {name: getattr(options, name) for name in ("destination", "dataset")}
    defaults = {"destination": "duckdb", "dataset": "convertly_data"}
    given = [f"--{name}={value}" for name, value in chosen.items() if value != defaults[name]]
    return [*command, "--", *given] if given else command


def summary(
    pipeline: dlt.Pipeline, options: argparse.Namespace, rows: Counter[str], before: int
) -> str:
    """Finish the tables, and say what was loaded."""
    said = f"Loaded {rows['jobs']:,} jobs"
    if not options.table_format:  # DuckDB would need an extension to count rows there
        add_results_table(pipeline)
        if options.models:
            replace_views(pipeline, create=True)
        new = count_jobs(pipeline) - before
        said += f" ({new:,} new, {rows['jobs'] - new:,} updated)"
    return (
        f"{said} and {rows['jobs__results']:,} results; "
        f"{rows['rejected_jobs']:,} rejected, {rows['removed_jobs']:,} removed"
    )


def say_what_is_new(info: LoadInfo) -> None:
    """Name the columns that came with a load and are none of the documented ones."""
    for package in info.load_packages:
        for table, update in package.schema_update.items():
            known = TABLES[table][1] if table in TABLES else {}
            new = [
                f"{table}.{name} ({column.get('data_type')})"
                for name, column in update.get("columns", {}).items()
                if name not in known and not f"{table}.{name}".count("_dlt_")
            ]
            if new:
                print(f"New in the API: {', '.join(sorted(new))}.")


def prepare(options: argparse.Namespace, host: str) -> dlt.Pipeline:
    """Finish what an earlier run left pending, then take the state from the destination.

    The local state may be that of another dataset or file, or older than the destination's.
    """
    pipeline = make_pipeline(options)
    if pipeline.has_pending_data and not options.full_refresh:
        if pipeline.get_local_state_val("target") != target(pipeline):
            raise SettingsError(
                f"A load into {pipeline.get_local_state_val('target')} was not finished.",
                "Run again with the settings of that load first, or with --full-refresh.",
            )
        finish_pending(pipeline)
    pipeline.drop()
    pipeline = make_pipeline(options)  # anew: the dropped one stays in the folder it was made in
    pipeline.set_local_state_val("target", target(pipeline))
    restore(pipeline)
    loaded = loaded_host(pipeline) or host
    if loaded != host and not options.full_refresh:
        if loaded != DEMO_HOST:
            raise SettingsError(
                f"{options.dataset} holds the account of {loaded}, not that of {host}.",
                "Choose another --dataset, or drop what is there with --full-refresh.",
            )
        print("The demo account makes way for yours.")
        options.full_refresh = True
    return pipeline


def make_pipeline(options: argparse.Namespace) -> dlt.Pipeline:
    """Make the pipeline, with the local state of earlier runs."""
    return pipeline_into(options.destination, options.dataset, progress=Progress())


def finish_pending(pipeline: dlt.Pipeline) -> None:
    """Load what an earlier run has extracted, but not a load that was cut off on its way.

    That one is read again: dlt might write a second time what was not yet noted as written.
    """
    for load_id in pipeline.list_normalized_load_packages():
        jobs = pipeline.get_load_package_info(load_id).jobs
        if any(jobs[state] for state in jobs if state != "new_jobs"):
            return
    pipeline.run()


def target(pipeline: dlt.Pipeline) -> str:
    """Say where the tables are."""
    return f"{pipeline.dataset_name} of {pipeline.destination_client().config}"


def count_jobs(pipeline: dlt.Pipeline) -> int:
    """Count the jobs that are loaded."""
    if not pipeline.default_schema_name:
        return 0
    try:
        with pipeline.sql_client() as client:
            jobs = client.make_qualified_table_name("jobs")
            counts = client.execute_sql(f"SELECT count(*) FROM {jobs}")  # noqa: S608 - of dlt
    except DestinationUndefinedEntity:
        return 0
    return int(counts[0][0]) if counts else 0


def add_results_table(pipeline: dlt.Pipeline) -> None:
    """Create `jobs__results` if there have been no results: dlt does so with the first row."""
    schema = pipeline.default_schema
    table = schema.tables["jobs__results"]
    if not has_table_seen_data(table):
        table["x-normalizer"] = {"seen-data": True}
        table["columns"].update(CHILD_COLUMNS)
        pipeline.sync_schema()


def replace_views(pipeline: dlt.Pipeline, *, create: bool) -> None:
    """Drop the views of pipelines/models, and create them."""
    if pipeline.default_schema_name and pipeline.destination.destination_name in MODEL_DESTINATIONS:
        with pipeline.sql_client() as client:
            if client.has_dataset():
                for view in reversed(MODELS):
                    client.execute_sql(
                        f"DROP VIEW IF EXISTS {client.make_qualified_table_name(view)}"
                    )
                for view in MODELS if create else ():
                    name = client.make_qualified_table_name(view)
                    query = FOLDER.joinpath("models", f"{view}.sql").read_text()
                    client.execute_sql(f"CREATE VIEW {name} AS {query}")


@contextmanager
def account(options: argparse.Namespace) -> Iterator[DltSource]:
    """Make the source: of the account that the settings name, or of a demo account."""
    names = ("start_date", "end_date", "status", "table_format")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    with access(demo=options.demo) as settings:
        yield convertly_source(**settings, **given)


@contextmanager
def access(*, demo: bool) -> Iterator[dict[str, Any]]:
    """Give what the source needs to reach the account: nothing, or the way to a demo account."""
    if demo:
        with DemoAPI(DemoAccount()).serve() as api:
            yield {"api_key": DEMO_KEY, "base_url": api.url}
    else:
        yield {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, open the app if that was asked for, and return the exit code."""

    def work(rows: Counter[str]) -> None:
        options = parse(arguments)
        load(options, rows)
        if options.open:
            command = [sys.executable, "-m", *explore(options)]
            os.execv(sys.executable, command)  # noqa: S606 - so that a Ctrl-C is marimo's own

    return run(work)


def run(work: Callable[[Counter[str]], None]) -> int:
    """Do the work, and return the exit code; what a person can mend is said in two lines."""
    rows = Counter[str]()
    stop_on_ctrl_c(rows)
    try:
        work(rows)
    except Exception as error:
        known = explained(error)
        if not known:
            raise
        print(f"{known}\n{known.remedy}", file=sys.stderr)
        return known.exit_code
    return 0


def stop_on_ctrl_c(rows: Counter[str]) -> None:
    """End at once on Ctrl-C, as safe as a SIGKILL: an exception might be swallowed on its way."""

    def stop(*_: object) -> None:
        print(f"Stopped. At least {rows['jobs']:,} jobs of this run are loaded.", file=sys.stderr)
        print("Nothing is lost: the next run goes on from there.", file=sys.stderr, flush=True)
        os._exit(1)

    signal.signal(signal.SIGINT, stop)


if __name__ == "__main__":
    sys.exit(main())
