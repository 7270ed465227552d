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
    with pipeline.sql_client() as client:
        names = [client.make_qualified_table_name(view) for view in MODELS]
        for name in reversed(names):
            client.execute_sql(f"DROP VIEW IF EXISTS {name}")
        for view, name in zip(MODELS, names, strict=True):
            client.execute_sql(f"CREATE VIEW {name} AS {model(view)}")
