-- One row per media type of the files that came out: how many, and what was saved.
WITH sums AS (
    SELECT
        mime_type,
        COUNT(*) AS files,
        CAST(SUM(original_size) AS BIGINT) AS bytes_in,
        CAST(SUM(final_size) AS BIGINT) AS bytes_out
    FROM {{ source('convertly', 'jobs__results') }}
    WHERE original_size IS NOT NULL AND final_size IS NOT NULL
    GROUP BY mime_type
)
SELECT
    mime_type,
    files,
    bytes_in,
    bytes_out,
    bytes_in - bytes_out AS bytes_saved,
    100 * {{ ratio('bytes_in - bytes_out', 'bytes_in') }} AS saved_percent
FROM sums
