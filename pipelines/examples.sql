-- Ten questions about jobs, for DuckDB and PostgreSQL. `convertly-source load --models` makes the views.
-- Before them: USE convertly_data (DuckDB), SET search_path TO convertly_data (PostgreSQL).

-- 1. What failed in the last 24 hours, and why?
SELECT
    error_message,
    job_type,
    COUNT(*) AS jobs,
    MAX(created_at) AS latest
FROM failures
WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '24 hours'
GROUP BY error_message, job_type
ORDER BY jobs DESC, latest DESC;

-- 2. Which format saves most?
SELECT
    mime_type,
    files,
    bytes_saved,
    saved_percent
FROM format_savings
ORDER BY bytes_saved DESC;

-- 3. Which jobs hang? They are open for more than an hour.
SELECT
    id,
    job_type,
    status,
    progress,
    CAST(FLOOR(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - created_at) / 3600) AS INTEGER) AS hours
FROM jobs
WHERE status IN ('pending', 'processing') AND created_at < CURRENT_TIMESTAMP - INTERVAL '1 hour'
ORDER BY created_at;

-- 4. What do retries cost? The API does not name them: here a retry is the next job of the same type and number of
-- files, if it comes within an hour after a failure.
SELECT
    job_type,
    COUNT(*) AS retries,
    SUM(CASE WHEN next_status = 'completed' THEN 1 ELSE 0 END) AS retries_that_helped,
    SUM(duration_seconds) AS seconds_lost
FROM (
    SELECT
        *,
        LEAD(status) OVER next_one AS next_status,
        LEAD(created_at) OVER next_one AS next_created_at
    FROM job_facts
    WINDOW next_one AS (PARTITION BY job_type, total_files ORDER BY created_at)
) AS followed
WHERE status = 'failed' AND next_created_at BETWEEN completed_at AND completed_at + INTERVAL '1 hour'
GROUP BY job_type
ORDER BY job_type;

-- 5. What is the throughput by hour of the day (UTC)?
SELECT
    CAST(EXTRACT(HOUR FROM completed_at AT TIME ZONE 'UTC') AS INTEGER) AS hour_of_day,
    COUNT(*) AS jobs,
    SUM(completed_files) AS files,
    SUM(bytes_in) AS bytes_in
FROM job_facts
WHERE status = 'completed'
GROUP BY CAST(EXTRACT(HOUR FROM completed_at AT TIME ZONE 'UTC') AS INTEGER)
ORDER BY hour_of_day;

-- 6. How long do jobs take, and how long each file of them?
SELECT
    job_type,
    PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS p50_seconds,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY duration_seconds) AS p95_seconds,
    SUM(duration_seconds) / NULLIF(SUM(total_files), 0) AS seconds_a_file
FROM job_facts
WHERE status = 'completed'
GROUP BY job_type
ORDER BY job_type;

-- 7. Does the failure rate rise? Week by week, in percent of the jobs that ended.
SELECT
    CAST(DATE_TRUNC('week', day) AS DATE) AS week,
    100.0 * SUM(CASE WHEN status = 'failed' THEN jobs ELSE 0 END) / SUM(jobs) AS failed_percent
FROM daily_jobs
WHERE status IN ('completed', 'failed')
GROUP BY CAST(DATE_TRUNC('week', day) AS DATE)
ORDER BY week;

-- 8. Which jobs are the heaviest?
SELECT
    id,
    job_type,
    bytes_in,
    bytes_saved,
    duration_seconds
FROM job_facts
WHERE bytes_in IS NOT NULL
ORDER BY bytes_in DESC
LIMIT 10;

-- 9. Which jobs were completed, but gave no results?
SELECT
    job_type,
    COUNT(*) AS jobs,
    MIN(created_at) AS since
FROM jobs
WHERE status = 'completed' AND NOT EXISTS (SELECT 1 FROM jobs__results WHERE jobs__results.job_id = jobs.id)
GROUP BY job_type
ORDER BY job_type;

-- 10. How many jobs were under way at once, at most, each day (UTC)? Counted after each start and end.
SELECT
    CAST(moment AT TIME ZONE 'UTC' AS DATE) AS day,
    MAX(under_way) AS jobs_at_once
FROM (
    SELECT
        moment,
        SUM(change) OVER (ORDER BY moment, change ROWS UNBOUNDED PRECEDING) AS under_way
    FROM (
        SELECT created_at AS moment, 1 AS change FROM jobs
        UNION ALL
        SELECT completed_at AS moment, -1 AS change FROM jobs WHERE completed_at IS NOT NULL
    ) AS changes
) AS counted
GROUP BY CAST(moment AT TIME ZONE 'UTC' AS DATE)
ORDER BY day;
