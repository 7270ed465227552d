"""Print what a peer has loaded, read by its own DuckDB; the argument is a query for the results."""

import json
import sys

import duckdb

STATUSES = "SELECT status, count(*) FROM data.jobs GROUP BY 1 ORDER BY 1"

with duckdb.connect("peer.duckdb", read_only=True) as connection:
    statuses = dict(connection.execute(STATUSES).fetchall())
    [jobs] = connection.execute("SELECT count(DISTINCT id) FROM data.jobs").fetchone() or [0]
    [results] = connection.execute(sys.argv[1]).fetchone() or [0]
print(json.dumps({"jobs": jobs, "results": int(results or 0), "statuses": statuses}))
