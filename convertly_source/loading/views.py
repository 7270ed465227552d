"""The views for BI, whose SQL stands in `models`."""

import dlt

from convertly_source.errors import SettingsError
from convertly_source.files import shipped

MODELS = ("job_facts", "daily_jobs", "format_savings", "failures")  # in the order of creation
DESTINATIONS = ("duckdb", "motherduck", "postgres")


def refuse_views(destination: str) -> None:
    """Raise `SettingsError` if the views can't be created in that destination."""
    if destination not in DESTINATIONS:
        raise SettingsError(
            f"The views can't be created in {destination}.",
            f"They are for {', '.join(DESTINATIONS)}.",
            setting="destination",
        )


def model(name: str) -> str:
    """Return the SQL of a view."""
    return shipped(f"models/{name}.sql").read_text()


def create_views(pipeline: dlt.Pipeline) -> None:
    """Create the views in the dataset, in place of those that are there."""
    drop_views(pipeline)
    with pipeline.sql_client() as client:
        for view in MODELS:
            name = client.make_qualified_table_name(view)
            client.execute_sql(f"CREATE VIEW {name} AS {model(view)}")


def drop_views(pipeline: dlt.Pipeline) -> None:
    """Drop the views, since no table can be dropped while they stand on it."""
    if pipeline.destination.destination_name not in DESTINATIONS:
        return
    with pipeline.sql_client() as client:
        if client.has_dataset():
            for view in reversed(MODELS):
                client.execute_sql(f"DROP VIEW IF EXISTS {client.make_qualified_table_name(view)}")
