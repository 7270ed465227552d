"""A dlt source for the jobs of a Convertly account (https://convertly.sh).

A job passes four folders: `api` fetches a page of the list, `reading` decides which jobs a run
reads, `tables` turns a job into rows, `loading` loads them. `source` makes a dlt source of the
first three; `cli` is the command line.
"""

from convertly_source.source import convertly_source

__all__ = ["convertly_source"]
