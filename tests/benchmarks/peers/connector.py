"""The connector, in a pipeline of a user's own."""

import os

import dlt

from convertly_source import convertly_source

pipeline = dlt.pipeline(
    "peer", destination=dlt.destinations.duckdb("peer.duckdb"), dataset_name="data"
)
pipeline.run(convertly_source(os.environ["API_KEY"], os.environ["API_URL"]))
