"""The floor: DuckDB reads the bodies, which lie in a folder, into two tables."""

import duckdb

with duckdb.connect("peer.duckdb") as connection:
    connection.execute("""
        CREATE SCHEMA data;
        CREATE TEMP TABLE listed AS
        SELECT unnest(jobs, recursive := true) FROM read_json('bodies/*.json', columns = {
            jobs: 'STRUCT(
                id VARCHAR, job_type VARCHAR, status VARCHAR, total_files BIGINT,
                completed_files BIGINT, failed_files BIGINT, progress BIGINT,
                error_message VARCHAR, created_at TIMESTAMPTZ, completed_at TIMESTAMPTZ,
                results STRUCT(files STRUCT(
                    filename VARCHAR, "mimeType" VARCHAR, "originalSize" BIGINT,
                    "finalSize" BIGINT, "savedPercent" DOUBLE, "appliedQuality" DOUBLE,
                    "storedFileId" VARCHAR, "downloadUrl" VARCHAR)[]))[]'});
        CREATE TABLE data.jobs AS SELECT * EXCLUDE (files) FROM listed;
        CREATE TABLE data.jobs__results AS
        SELECT * REPLACE (split_part("downloadUrl", '?', 1) AS "downloadUrl")
        FROM (SELECT id AS job_id, unnest(files, recursive := true) FROM listed);
    """)
