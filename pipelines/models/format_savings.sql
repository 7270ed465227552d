-- One row a media type of the files that came out: how many, and what was saved.
SELECT
    mime_type,
    COUNT(*) AS files,
    CAST(SUM(original_size) AS BIGINT) AS bytes_in,
    CAST(SUM(final_size) AS BIGINT) AS bytes_out,
    CAST(SUM(original_size - final_size) AS BIGINT) AS bytes_saved,
    100 * CAST(SUM(original_size - final_size) AS DOUBLE PRECISION) / NULLIF(SUM(original_size), 0) AS saved_percent
FROM jobs__results
WHERE original_size IS NOT NULL AND final_size IS NOT NULL
GROUP BY mime_type
