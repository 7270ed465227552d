-- Jobs that failed, or have files that did, the most recent first, with the API's message.
SELECT
    id,
    job_type,
    status,
    created_at,
    completed_at,
    total_files,
    failed_files,
    error_message
FROM jobs
WHERE status = 'failed' OR failed_files > 0
ORDER BY created_at DESC
