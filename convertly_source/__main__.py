"""`python -m convertly_source check` says whether a load will work, `tables` what it fills."""

import argparse
import inspect
import os
import sys
from collections.abc import Iterator, Sequence

from dlt.common.configuration import with_config
from dlt.common.configuration.utils import get_resolved_traces

from convertly_source.errors import explained
from convertly_source.reading.job import BEGINNING
from convertly_source.reading.listing import Listing
from convertly_source.settings import connect
from convertly_source.source import convertly_source
from convertly_source.tables.schema import TABLES

VENDORS_NAMES = {"api_key": "CONVERTLY_API_KEY", "base_url": "CONVERTLY_BASE_URL"}
PAGE = 100


def check() -> Iterator[str]:
    """Say which settings there are and where they come from, and what the API answers."""
    get_resolved_traces().clear()
    convertly_source()  # refuses what can't be
    found = {trace.key: trace for trace in get_resolved_traces().resolved_traces}
    for name, parameter in inspect.signature(convertly_source).parameters.items():
        value, origin = parameter.default, "by default"
        if name in found:
            value = found[name].value
            origin = f"from {found[name].provider_location or found[name].provider_name}"
        elif os.environ.get(VENDORS_NAMES.get(name, "")):
            value, origin = os.environ[VENDORS_NAMES[name]], f"from {VENDORS_NAMES[name]}"
        yield f"{name:20} {'***' if name == 'api_key' else value}, {origin}"
    client = with_config(connect, sections=("sources", "convertly"))()
    listing = Listing(client, PAGE, max_connections=1)
    yield f"The API at {client.host} answers, and takes the key."
    if not listing.total:
        yield "It has no jobs yet."
    elif not listing.is_ordered:
        yield f"{listing.total:,} jobs, in no order of age: each run will read all of them."
    else:
        order = "newest" if listing.is_newest_first else "oldest"
        ages = listing.search(BEGINNING).oldest, listing.newest_page.youngest
        since, until = (f"{age:%Y-%m-%d %H:%M:%S}" for age in ages)
        yield f"{listing.total:,} jobs, {order} first, created from {since} to {until} UTC."


def tables() -> Iterator[str]:
    """Give each table and column, its type and meaning, as Markdown."""
    yield "| table | column | type | meaning |"
    yield "| --- | --- | --- | --- |"
    for table, (meaning, columns) in TABLES.items():
        yield f"| `{table}` | | | **{meaning}** |"
        for name, column in columns.items():
            kind = column["data_type"] if column["nullable"] else f"{column['data_type']}, not null"
            yield f"| | `{name}` | {kind} | {column['description']} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one or the other; the exit codes are those of `pipelines/load_jobs.py`."""
    parser = argparse.ArgumentParser("python -m convertly_source", description=__doc__)
    parser.add_argument("what", choices=["check", "tables"])
    what = parser.parse_args(arguments).what
    try:
        for line in check() if what == "check" else tables():
            print(line)
    except Exception as error:
        known = explained(error)
        if not known:
            raise
        print(f"{known}\n{known.remedy}", file=sys.stderr)
        return known.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
