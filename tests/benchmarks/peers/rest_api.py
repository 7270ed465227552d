"""The generic source of dlt, as its documentation would have it; `parquet` as the only argument.

The API has no filter by date, so the rows are declared to come newest first, and dlt stops behind
the cursor less a day.
"""

import os
import sys

import dlt
from dlt.sources.rest_api import rest_api_source

source = rest_api_source(
    {
        "client": {
            "base_url": os.environ["API_URL"],
            "auth": {"type": "bearer", "token": os.environ["API_KEY"]},
            "paginator": {"type": "offset", "limit": 100, "total_path": "pagination.total"},
        },
        "resources": [
            {
                "name": "jobs",
                "primary_key": "id",
                "write_disposition": "merge",
                "endpoint": {
                    "path": "api/jobs",
                    "data_selector": "jobs",
                    "incremental": {
                        "cursor_path": "created_at",
                        "initial_value": "1970-01-01T00:00:00.000Z",
                        "row_order": "desc",
                        "lag": 24 * 60 * 60,
                    },
                },
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "peer", destination=dlt.destinations.duckdb("peer.duckdb"), dataset_name="data"
)
pipeline.run(source, loader_file_format="parquet" if "parquet" in sys.argv else None)
