"""The command line: arguments, what is printed, exit codes.

Exit codes: 0 done; 2 to 5 as in `convertly_source.errors`; 1 anything else.
"""

import argparse
import gc
import inspect
import os
import re
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from runpy import run_module
from subprocess import list2cmdline
from typing import Any, NoReturn

from dlt.common.configuration.utils import get_resolved_traces

from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import ConvertlyError, SettingsError, explained, printable
from convertly_source.files import copy_all, shipped
from convertly_source.loading import LoadResult, Target, load_account, verify_account
from convertly_source.loading.backfill import (
    Checkpoint,
    Window,
    check,
    count_listed,
    list_jobs,
    load_window,
    plan_windows,
)
from convertly_source.loading.load import PAGES_PER_CHUNK
from convertly_source.loading.settings import configure
from convertly_source.loading.views import refuse_views
from convertly_source.progress import Progress
from convertly_source.reading.job import BEGINNING
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import DisorderError
from convertly_source.source import convertly_source
from convertly_source.tables.schema import TABLES

EXAMPLE = "SELECT job_type, status, count(*) AS jobs FROM {}.jobs GROUP BY 1, 2 ORDER BY 3 DESC"
EXPLORE_PACKAGES = ("marimo", "altair")
INSTALL_EXPLORE = 'pip install "convertly-source[explore]"'
VENDORS_NAMES = {"api_key": "CONVERTLY_API_KEY", "base_url": "CONVERTLY_BASE_URL"}
# A value in the messages of argparse: in quotes, or after an ambiguous option.
VALUE = re.compile(r""":? ('(\\.|[^'])*'|"(\\.|[^"])*")|=.*(?= could match )""", re.DOTALL)
HINTS = {  # by the setting to change: options that help, shown if the command has them
    "api_key": {"demo": "Or try the demo account: --demo."},
    "dataset": {
        "dataset": "On the command line: --dataset.",
        "full_refresh": "Or replace what is there: --full-refresh.",
    },
    "state": {"full_refresh": "On the command line: --full-refresh."},
    "wait_seconds": {"wait": "Or wait for it: --wait SECONDS."},
    "trust_account": {
        "dataset": "On the command line: --dataset.",
        "trust_account": "Or --trust-account.",
    },
    "table_format": {"table_format": "On the command line: --table-format."},
}


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument as every other wrong setting is reported, without its value.

    That may be a key.
    """

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse unknown arguments of a command here, not in the parser of all commands."""
        options, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            names = [name for name in map(_option, unknown) if name]
            self.error(f"unrecognized arguments{':' if names else ''} {' '.join(names)}".rstrip())
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        message = VALUE.sub("", message, count=1)
        raise SettingsError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


def parser() -> Parser:
    """Return the parser of all commands."""
    top = Parser("convertly-source", description="Load the jobs of a Convertly account.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., None], text: str) -> Parser:
        one: Parser = commands.add_parser(
            name, help=text, description=f"{text[:1].upper()}{text[1:]}."
        )
        one.set_defaults(run=run)
        return one

    load_ = command("load", load, "load what has changed since the last load")
    verify_ = command("verify", verify, "make the tables equal to the account, whatever happened")
    backfill_ = command("backfill", backfill, "load the history of an account in windows")
    command("check", check_settings, "show the settings, and whether the API answers")
    command("tables", print_tables, "print the tables and columns as Markdown")
    explore_ = command("explore", explore, "look at the loaded jobs in a browser")
    init_ = command("init", init, "copy the DAG, the workflow, dbt, the SQL and the settings")

    for one in (load_, verify_, backfill_, explore_):
        one.add_argument(
            "--destination", default="duckdb", help="destination of dlt (default: %(default)s)"
        )
        one.add_argument(
            "--dataset", default="convertly_data", help="dataset, a schema (default: %(default)s)"
        )
    for one in (load_, verify_, backfill_):
        one.add_argument("--demo", action="store_true", help="load a demo account; needs no key")
    add = load_.add_argument
    add("--start-date", help="oldest created_at to load (included; UTC)")
    add("--end-date", help="created_at to load up to (not included): load just this window, again")
    add("--status", help="load only jobs that are pending, processing, completed or failed")
    add("--table-format", help="of --destination filesystem: delta (default) or iceberg")
    add("--models", action="store_true", help="create the views for BI in the dataset")
    add("--open", action="store_true", help="look at the jobs afterwards, in a browser")
    add("--verify", action="store_true", help="do as the command verify does instead")
    add("--full-refresh", action="store_true", help="read all again, delete what is gone")
    add(
        "--chunk-pages",
        type=_count,
        default=PAGES_PER_CHUNK,
        help="pages per load, 0: all (default: %(default)s)",
    )
    for one in (load_, verify_):
        add = one.add_argument
        add(
            "--trust-account",
            action="store_true",
            default=None,
            help="load although no known job is listed",
        )
        add("--all", action="store_true", help="verify by reading all jobs")
        add(
            "--wait",
            type=_seconds,
            default=0,
            metavar="SECONDS",
            help="wait that long for another load to end (default: %(default)s)",
        )
    add = backfill_.add_argument
    add("--start", help="oldest created_at to load (default: the day of the oldest job; UTC)")
    add("--end", help="created_at to load up to, not included (default: behind the newest job)")
    add("--days", type=float, default=7, help="days of a window (default: %(default)s)")
    init_.add_argument("folder", nargs="?", default=".", help="where to (default: this folder)")
    return top


def load(options: argparse.Namespace, rows: Counter[str]) -> None:
    """Load the account and print what was done; or verify it."""
    if options.verify:
        if options.full_refresh or options.models or options.open:
            raise SettingsError(
                "--verify takes the place of a load.",
                "Leave out --full-refresh, --models and --open, or load afterwards.",
            )
        verify(options, rows)
        return
    if options.all:
        raise SettingsError("A load does not read all jobs.", "Add --verify, or leave out --all.")
    if options.destination == "filesystem":
        options.table_format = options.table_format or "delta"
    elif options.table_format:
        raise SettingsError(
            "Only the destination filesystem has a table format.",
            "Leave out --table-format, or use --destination filesystem.",
        )
    if options.open:
        _require_explore(options.destination)
    with account_settings(demo=options.demo) as settings:
        result = load_account(
            Target(options.destination, options.dataset),
            convertly_source(**settings, **_given(options)),
            pages_per_chunk=options.chunk_pages,
            full_refresh=options.full_refresh,
            views=options.models or options.open,
            wait_seconds=options.wait,
            progress=Progress(),
            report=print,
            rows=rows,
        )
    print_summary(result, options)
    if options.open:
        explore(options, rows)


def verify(options: argparse.Namespace, _: Counter[str]) -> None:
    """Compare the tables with the account, load what differs, and print the result."""
    with account_settings(demo=options.demo) as settings:
        result = verify_account(
            Target(options.destination, options.dataset),
            convertly_source(**settings, **_given(options)),
            read_all=options.all,
            wait_seconds=options.wait,
            progress=Progress(),
            report=print,
        )
    print(
        f"Verified: {result.listed:,} jobs listed, {result.held:,} held; "
        f"{result.loaded:,} loaded again, {result.removed:,} removed."
    )


def print_summary(result: LoadResult, options: argparse.Namespace) -> None:
    """Print what was loaded, where it is, and what to try next."""
    rows = result.rows
    loaded = f"Loaded {rows['jobs']:,} jobs"
    if result.new_jobs is not None:
        loaded += f" ({result.new_jobs:,} new, {rows['jobs'] - result.new_jobs:,} updated)"
    print(
        f"{loaded} and {rows['jobs__results']:,} results; "
        f"{rows['rejected_jobs']:,} rejected, {rows['removed_jobs']:,} removed."
    )
    if result.held is not None:
        print(f"{result.listed:,} listed, {result.held:,} held.")
    if result.new_jobs is None:
        print(f"They are in {result.place}.")
    else:
        print(f"They are in {result.place}. Try:\n  {EXAMPLE.format(result.dataset)}")
    with suppress(SettingsError):
        refuse_views(options.destination)
        install = "" if _can_explore() else f"{INSTALL_EXPLORE} && "
        command = _as_typed(["convertly-source", "explore", *_chosen(options)])
        print(f"Look at them: {install}{command}", flush=True)


def backfill(options: argparse.Namespace, rows: Counter[str]) -> None:
    """Load the windows that are still to be loaded, the oldest first, and compare."""
    configure(options.destination)
    target = Target(options.destination, options.dataset)
    with account_settings(demo=options.demo) as settings:
        windows = plan_windows(target, settings, options.start, options.end, options.days)
        whole = Window(windows[0].start, windows[-1].end)
        checkpoint = Checkpoint(target, settings, whole.start)
        ahead = Window(checkpoint.loaded_until, whole.end)
        progress = Progress(total=count_listed(settings, ahead))
        for number, window in enumerate(windows, 1):
            if window.end > checkpoint.loaded_until:
                new = load_window(window, target, settings, progress)
                rows.update(new)
                checkpoint.save(window.end)
                start, end = (f"{timestamp:%Y-%m-%d %H:%M}" for timestamp in window)
                counts = f"{new['jobs']:,} jobs and {new['jobs__results']:,} results"
                print(f"{number} of {len(windows)}: {start} to {end}, {counts}", flush=True)
        result = check(whole, target, settings)
        checkpoint.save(whole.start)  # the next run loads all windows again
    print(f"All {result.jobs:,} jobs of these windows are in {checkpoint.place}. Continue with:")
    given = [f"--destination={options.destination}", f"--dataset={options.dataset}"]
    given += ["--demo"] if options.demo else []
    given += [f"--start-date={result.start_date.isoformat()}"]
    print(f"  convertly-source load {_as_typed(given)}")


def check_settings(_: argparse.Namespace, __: Counter[str]) -> None:
    """Print which settings there are and where they come from, and what the API answers."""
    get_resolved_traces().clear()
    source = convertly_source()  # raises for a value that is not allowed
    found = {trace.key: trace for trace in get_resolved_traces().resolved_traces}
    for name, parameter in inspect.signature(convertly_source).parameters.items():
        value, origin = parameter.default, "by default"
        if name in found:
            value = found[name].value
            origin = f"from {found[name].provider_location or found[name].provider_name}"
        elif os.environ.get(VENDORS_NAMES.get(name, "")):
            value, origin = os.environ[VENDORS_NAMES[name]], f"from {VENDORS_NAMES[name]}"
        print(f"{name:20} {'***' if name == 'api_key' else value}, {origin}")
    listing = list_jobs({})
    host = source.resources["jobs"].custom_metrics["host"]
    print(f"The API at {host} answers, and accepts the key.")
    if listing.total:
        print(f"{listing.total:,} jobs, {_order_of(listing)}.")
    else:
        print("It has no jobs yet.")


def _order_of(listing: Listing) -> str:
    """Return how the API lists jobs, and their time span."""
    with suppress(DisorderError):
        if listing.is_ordered:
            order = "newest" if listing.is_newest_first else "oldest"
            bounds = listing.search(BEGINNING).oldest, listing.newest_page.youngest
            since, until = (f"{timestamp:%Y-%m-%d %H:%M:%S}" for timestamp in bounds)
            return f"{order} first, created from {since} to {until} UTC"
    return "in no order: each run will read all of them"


def print_tables(_: argparse.Namespace, __: Counter[str]) -> None:
    """Print each table and column, its type and meaning, as Markdown."""
    print("| table | column | type | meaning |")
    print("| --- | --- | --- | --- |")
    for table, (meaning, columns) in TABLES.items():
        print(f"| `{table}` | | | **{meaning}** |")
        for name, column in columns.items():
            kind = column["data_type"] if column["nullable"] else f"{column['data_type']}, not null"
            print(f"| | `{name}` | {kind} | {column['description']} |")


def explore(options: argparse.Namespace, _: Counter[str]) -> None:
    """Run the app on what is loaded in this process, so that a Ctrl-C or a kill is marimo's own."""
    _require_explore(options.destination)
    app = str(shipped("explore_jobs.py"))
    sys.argv = ["marimo", "run", app, "--", *_chosen(options)]
    run_module("marimo", run_name="__main__", alter_sys=True)


def init(options: argparse.Namespace, _: Counter[str]) -> None:
    """Copy the files that a user adapts, and print what was written."""
    try:
        written, kept = copy_all(Path(options.folder))
    except OSError as error:
        message = f"Could not write {error.filename}: {error.strerror}."
        raise SettingsError(message, "Choose another folder.") from error
    for file in written:
        print(f"Wrote {file}")
    for file in kept:
        print(f"Kept {file} (it was there already)")


@contextmanager
def account_settings(*, demo: bool) -> Iterator[dict[str, Any]]:
    """Yield the arguments of the source that reach the account: none, or those of a demo one."""
    if demo:
        with DemoAPI(DemoAccount()).serve() as api:
            yield {"api_key": DEMO_KEY, "base_url": api.url}
    else:
        yield {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors with a remedy take two lines."""
    gc.set_threshold(100_000)  # most of what dlt makes lives on: a run takes a tenth less CPU
    _open_closed_outputs()
    rows = Counter[str]()
    options = argparse.Namespace()
    _stop_on_ctrl_c(rows)
    try:
        parser().parse_args(arguments, options)
        options.run(options, rows)
        sys.stdout.flush()
    except BrokenPipeError:  # what read the output has ended, as `head` does
        _drop_output()
        return 1
    except Exception as error:
        known = explained(error) or _explained_by_the_system(error)
        if not known:
            raise
        hints = HINTS.get(known.setting or "", {}).items()
        remedies = [known.remedy, *(hint for option, hint in hints if option in options)]
        print(known, " ".join(remedies), sep="\n", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # Python would report it again at its end
            _drop_output()
        return known.exit_code
    return 0


def _open_closed_outputs() -> None:
    """Replace closed outputs (`>&-`, `2>&-`), so that no database gets their file descriptor."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - it stays open


def _drop_output() -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _explained_by_the_system(error: BaseException | None) -> ConvertlyError | None:
    """Return the error for what the system refused: a file, a folder, space on a disk."""
    while error:
        if isinstance(error, OSError) and error.strerror:
            what = f"{error.filename}: " if error.filename else ""
            return ConvertlyError(
                printable(f"{what}{error.strerror}."),
                "Correct the path or its rights, or free space; then run again.",
            )
        error = error.__cause__
    return None


def _stop_on_ctrl_c(rows: Counter[str]) -> None:
    """End at once on Ctrl-C, as safe as a SIGKILL: an exception might be swallowed on its way."""

    def stop(*_: object) -> None:
        print(f"Stopped. At least {rows['jobs']:,} jobs of this run are loaded.", file=sys.stderr)
        print("Nothing is lost: the next run continues from there.", file=sys.stderr, flush=True)
        os._exit(1)

    signal.signal(signal.SIGINT, stop)


def _option(argument: str) -> str:
    """Return the option of an argument without a value; empty if it is none."""
    name = argument.partition("=")[0]
    return name if name.startswith("--") else name[:2] if name.startswith("-") else ""


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError("it is negative")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:  # NaN is no time either
        raise argparse.ArgumentTypeError("it is no time to wait")
    return seconds


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the arguments that lead to what was loaded."""
    defaults = Target()
    chosen = {"destination": options.destination, "dataset": options.dataset}
    return [
        f"--{name}={value}" for name, value in chosen.items() if value != getattr(defaults, name)
    ]


def _as_typed(arguments: list[str]) -> str:
    """Return arguments as they are typed in a shell of this system, with quotes where needed."""
    return list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the source that were given as arguments."""
    names = ("start_date", "end_date", "status", "table_format", "trust_account")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def _can_explore() -> bool:
    return all(map(find_spec, EXPLORE_PACKAGES))


def _require_explore(destination: str) -> None:
    """Raise `SettingsError` if the app can't be opened on that destination."""
    refuse_views(destination)
    if not _can_explore():
        raise SettingsError(
            f"The app needs {' and '.join(EXPLORE_PACKAGES)}.", f"Install them: {INSTALL_EXPLORE}"
        )
