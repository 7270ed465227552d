-- One row per day (UTC), type and status. The failure rate is that of the day and type: failed of those that ended.
WITH dated AS (
    SELECT
        {{ utc_date('created_at') }} AS day,
        job_type,
        status,
        duration_seconds,
        bytes_saved,
        removed_at
    FROM {{ ref('job_facts') }}
),
counted AS (
    SELECT
        day,
        job_type,
        status,
        COUNT(*) AS jobs,
        COUNT(removed_at) AS removed_jobs,
        SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed,
        SUM(CASE WHEN status IN ('completed', 'failed') THEN 1 ELSE 0 END) AS ended,
        {{ percentile('0.5', 'duration_seconds') }} AS p50_duration_seconds,
        {{ percentile('0.95', 'duration_seconds') }} AS p95_duration_seconds,
        CAST(SUM(bytes_saved) AS BIGINT) AS bytes_saved
    FROM dated
    GROUP BY day, job_type, status
),
compared AS (
    SELECT
        *,
        SUM(failed) OVER (PARTITION BY day, job_type) AS failed_of_type,
        SUM(ended) OVER (PARTITION BY day, job_type) AS ended_of_type
    FROM counted
)
SELECT
    day,
    job_type,
    status,
    jobs,
    removed_jobs,
    {{ ratio('failed_of_type', 'ended_of_type') }} AS failure_rate,
    p50_duration_seconds,
    p95_duration_seconds,
    bytes_saved
FROM compared
