-- One row a day (UTC), type and status. The failure rate is that of the day and type: failed of those that ended.
SELECT
    CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS day,
    job_type,
    status,
    COUNT(*) AS jobs,
    COUNT(removed_at) AS removed_jobs,
    CAST(SUM(SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END)) OVER of_type AS DOUBLE PRECISION)
    / NULLIF(SUM(SUM(CASE WHEN status IN ('completed', 'failed') THEN 1 ELSE 0 END)) OVER of_type, 0) AS failure_rate,
    PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS p50_duration_seconds,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY duration_seconds) AS p95_duration_seconds,
    CAST(SUM(bytes_saved) AS BIGINT) AS bytes_saved
FROM job_facts
GROUP BY CAST(created_at AT TIME ZONE 'UTC' AS DATE), job_type, status
WINDOW of_type AS (PARTITION BY CAST(created_at AT TIME ZONE 'UTC' AS DATE), job_type)
