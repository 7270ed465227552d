-- One row per job: how long it took, and what its files weighed before and after (where both are known).
WITH files AS (
    SELECT
        job_id,
        CAST(SUM(original_size) AS BIGINT) AS bytes_in,
        CAST(SUM(final_size) AS BIGINT) AS bytes_out
    FROM {{ source('convertly', 'jobs__results') }}
    WHERE original_size IS NOT NULL AND final_size IS NOT NULL
    GROUP BY job_id
)
SELECT
    jobs.id,
    jobs.job_type,
    jobs.status,
    jobs.created_at,
    jobs.completed_at,
    {{ seconds_between('jobs.created_at', 'jobs.completed_at') }} AS duration_seconds,
    jobs.total_files,
    jobs.completed_files,
    jobs.failed_files,
    files.bytes_in,
    files.bytes_out,
    files.bytes_in - files.bytes_out AS bytes_saved,
    100 * {{ ratio('files.bytes_in - files.bytes_out', 'files.bytes_in') }} AS saved_percent,
    removed_jobs.noticed_at AS removed_at
FROM {{ source('convertly', 'jobs') }} AS jobs
LEFT JOIN {{ source('convertly', 'removed_jobs') }} AS removed_jobs ON removed_jobs.id = jobs.id
LEFT JOIN files ON files.job_id = jobs.id
