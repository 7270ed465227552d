-- One row per job that failed, or has files that did, the most recent first, with the API's message.
SELECT
    jobs.id,
    jobs.job_type,
    jobs.status,
    jobs.created_at,
    jobs.completed_at,
    jobs.total_files,
    jobs.failed_files,
    jobs.error_message,
    removed_jobs.noticed_at AS removed_at
FROM {{ source('convertly', 'jobs') }} AS jobs
LEFT JOIN {{ source('convertly', 'removed_jobs') }} AS removed_jobs ON removed_jobs.id = jobs.id
WHERE jobs.status = 'failed' OR jobs.failed_files > 0
ORDER BY jobs.created_at DESC
