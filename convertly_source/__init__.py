"""A dlt source for the jobs of a Convertly account (https://convertly.sh).

Four packages handle a job in turn: `api` fetches a page of the list, `reading` decides which jobs
to read, `tables` turns each job into rows, and `loading` loads the rows. `source` combines the
first three into a dlt source; `cli` is the command line.
"""

from convertly_source.source import convertly_source

__all__ = ["convertly_source"]
