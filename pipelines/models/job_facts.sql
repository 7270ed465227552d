-- One row a job: how long it took, and what its files weighed before and after (where both are known).
SELECT
    jobs.id,
    jobs.job_type,
    jobs.status,
    jobs.created_at,
    jobs.completed_at,
    CAST(EXTRACT(EPOCH FROM jobs.completed_at - jobs.created_at) AS DOUBLE PRECISION) AS duration_seconds,
    jobs.total_files,
    jobs.completed_files,
    jobs.failed_files,
    files.bytes_in,
    files.bytes_out,
    files.bytes_in - files.bytes_out AS bytes_saved,
    100 * CAST(files.bytes_in - files.bytes_out AS DOUBLE PRECISION) / NULLIF(files.bytes_in, 0) AS saved_percent,
    removed_jobs.noticed_at AS removed_at
FROM jobs
LEFT JOIN removed_jobs ON removed_jobs.id = jobs.id
LEFT JOIN (
    SELECT
        job_id,
        CAST(SUM(original_size) AS BIGINT) AS bytes_in,
        CAST(SUM(final_size) AS BIGINT) AS bytes_out
    FROM jobs__results
    WHERE original_size IS NOT NULL AND final_size IS NOT NULL
    GROUP BY job_id
) AS files ON files.job_id = jobs.id
