"""The connector, as far as dlt's files: what the reading of a large account costs."""

import os

import dlt

from convertly_source import convertly_source

pipeline = dlt.pipeline("peer", destination="duckdb", dataset_name="data")
pipeline.extract(convertly_source(os.environ["API_KEY"], os.environ["API_URL"]))
