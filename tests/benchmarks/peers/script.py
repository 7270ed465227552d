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
connection.execute("""
    CREATE TABLE IF NOT EXISTS data.jobs (
        id VARCHAR PRIMARY KEY, job_type VARCHAR, status VARCHAR, total_files BIGINT,
        completed_files BIGINT, failed_files BIGINT, progress BIGINT, error_message VARCHAR,
        results STRUCT(files STRUCT(
            filename VARCHAR, "mimeType" VARCHAR, "originalSize" BIGINT, "finalSize" BIGINT,
            "savedPercent" DOUBLE, "appliedQuality" DOUBLE, "storedFileId" VARCHAR,
            "downloadUrl" VARCHAR)[]),
        created_at TIMESTAMP, completed_at TIMESTAMP)
""")
[(newest,)] = connection.execute("SELECT max(created_at) FROM data.jobs").fetchall()
since = (newest - timedelta(days=1)).isoformat() if newest else ""
offset, total, oldest = 0, 1, "9999"
with Path("jobs.json").open("w") as file:
    while offset < total and oldest >= since:
        response = session.get(
            f"{os.environ['API_URL']}/api/jobs", params={"limit": 100, "offset": offset}, timeout=60
        )
        response.raise_for_status()
        page = response.json()
        for job in page["jobs"]:
            file.write(json.dumps(job) + "\n")
        offset, total = offset + len(page["jobs"]), page["pagination"]["total"]
        oldest = page["jobs"][-1]["created_at"] if page["jobs"] else ""
connection.execute("""
    INSERT OR REPLACE INTO data.jobs BY NAME
    SELECT * FROM read_json('jobs.json', format = 'newline_delimited', columns = {
        id: 'VARCHAR', job_type: 'VARCHAR', status: 'VARCHAR', total_files: 'BIGINT',
        completed_files: 'BIGINT', failed_files: 'BIGINT', progress: 'BIGINT',
        error_message: 'VARCHAR', created_at: 'TIMESTAMP', completed_at: 'TIMESTAMP',
        results: 'STRUCT(files STRUCT(filename VARCHAR, "mimeType" VARCHAR, "originalSize" BIGINT,
            "finalSize" BIGINT, "savedPercent" DOUBLE, "appliedQuality" DOUBLE,
            "storedFileId" VARCHAR, "downloadUrl" VARCHAR)[])'})
    QUALIFY row_number() OVER (PARTITION BY id) = 1
""")
