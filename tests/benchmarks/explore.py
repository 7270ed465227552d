"""Measure how fast explore_jobs.py opens on 1,000,000 jobs with 3,000,000 results.

Run it: python tests/benchmarks/explore.py. DuckDB makes the warehouse, in a folder that is removed
afterwards; Chromium opens the page, then changes a filter, until the last section is there.
"""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

sys.path.append(str(Path(__file__).resolve().parents[1]))

from helpers.servers import chromium, explorer

JOBS = 1_000_000
TABLES = f"""
CREATE SCHEMA convertly_data;
USE convertly_data;
CREATE TABLE jobs AS SELECT
    CAST(uuid() AS VARCHAR) AS id,
    ['convert', 'compress', 'media_tool', 'transfer'][1 + n % 4] AS job_type,
    CASE WHEN n >= {JOBS} - 100 THEN 'pending' WHEN n % 13 = 0 THEN 'failed' ELSE 'completed' END
        AS status,
    3 AS total_files, 3 AS completed_files, 0 AS failed_files, 100 AS progress,
    IF(n % 13 = 0, 'Unsupported codec.', NULL) AS error_message,
    TIMESTAMPTZ '2025-01-01' + to_seconds(n * 30) AS created_at,
    IF(n < {JOBS} - 100, created_at + to_seconds(hash(n) % 600), NULL) AS completed_at
FROM range({JOBS}) AS numbers(n);
CREATE TABLE jobs__results AS SELECT
    id AS job_id, place AS _dlt_list_idx, 'file.webp' AS filename, NULL AS value,
    ['image/webp', 'image/avif', 'video/mp4'][1 + place] AS mime_type,
    'https://files.convertly.sh/' || id AS download_url, NULL::BIGINT AS size_bytes,
    (2 + 2 * (hash(id) % 1000000))::BIGINT AS original_size, original_size // 2 AS final_size,
    50.0::DOUBLE AS saved_percent
FROM jobs, range(3) AS places(place);
CREATE TABLE removed_jobs AS SELECT id, 'completed' AS last_status, created_at, now() AS noticed_at
FROM jobs LIMIT 1000;
CREATE TABLE runs AS SELECT
    now() AS finished_at, 'load' AS kind, {JOBS} AS listed, {JOBS} AS held, 0 AS jobs_loaded,
    0 AS rejected, 0 AS removed, 100 AS open_jobs, 1 AS requests;
"""


def main() -> None:
    """Make the warehouse, and measure."""
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        with duckdb.connect("convertly.duckdb") as connection:
            connection.execute(TABLES)
        with explorer() as url, chromium() as browser:
            page = browser.new_page()
            begin = time.monotonic()
            page.goto(url)
            page.get_by_role("table", name="Results").wait_for()
            print(f"Opened in {time.monotonic() - begin:.1f} s")
            begin = time.monotonic()
            page.get_by_label("Job type", exact=True).select_option("convert")
            slowest = page.get_by_role("table", name="Slowest jobs")
            slowest.get_by_text("compress").first.wait_for(state="detached")
            print(f"Filtered in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
