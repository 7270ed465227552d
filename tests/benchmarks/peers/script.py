"""What a user would write instead: requests, DuckDB, and a day of look-back."""

import json
import os
from datetime import timedelta
from pathlib import Path

import duckdb
import requests

session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['API_KEY']}"
connection = duckdb.connect("peer.duckdb")
connection.execute("CREATE SCHEMA IF NOT EXISTS data")
since, offset, has_more = "", 0, True
if connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'jobs'").fetchall():
    [(newest,)] = connection.execute("SELECT max(created_at) FROM data.jobs").fetchall()
    since = (newest - timedelta(days=1)).isoformat()

with Path("jobs.json").open("w") as file:
    while has_more:
        response = session.get(
            f"{os.environ['API_URL']}/api/jobs", params={"limit": 100, "offset": offset}, timeout=60
        )
        response.raise_for_status()
        page = response.json()
        file.writelines(json.dumps(job) + "\n" for job in page["jobs"])
        offset += len(page["jobs"])
        has_more = page["pagination"]["hasMore"] and page["jobs"][-1]["created_at"] >= since

connection.execute("""
    CREATE TEMP TABLE new AS SELECT DISTINCT ON (id) * FROM read_json('jobs.json');
    CREATE TABLE IF NOT EXISTS data.jobs AS SELECT * FROM new LIMIT 0;
    DELETE FROM data.jobs WHERE id IN (SELECT id FROM new);
    INSERT INTO data.jobs BY NAME SELECT * FROM new;
""")
