"""The views for BI: the models of the dbt project, rendered without dbt."""

import re

import dlt

from convertly_source.errors import SettingsError
from convertly_source.files import shipped
from convertly_source.loading.target import open_client

MODELS = ("job_facts", "daily_jobs", "format_savings", "failures")  # in the order of creation
DESTINATIONS = ("duckdb", "motherduck", "postgres")
MACRO = re.compile(r"{% macro default__(\w+)\((.+)\) -%}\n(.+)\n{%- endmacro %}")
CALL = re.compile(r"{{ (\w+)\((.+?)\) }}")


def refuse_views(destination: str) -> None:
    """Raise `SettingsError` if the views can't be created in that destination."""
    if destination not in DESTINATIONS:
        raise SettingsError(
            f"The views can't be created in {destination}.",
            f"They are for {', '.join(DESTINATIONS)}.",
            setting="destination",
        )


def model(name: str) -> str:
    """Return the SQL of a view, for a connection that finds the tables by their bare names."""
    macros: dict[str, tuple[list[str], str]] = {
        macro: (parameters.split(", "), text)
        for macro, parameters, text in MACRO.findall(shipped("dbt/macros/dialects.sql").read_text())
    }

    def rendered(call: re.Match[str]) -> str:
        arguments: list[str] = re.findall(r"'(.+?)'", call[2])
        if call[1] in ("source", "ref"):
            return arguments[-1]
        parameters, text = macros[call[1]]
        for parameter, argument in zip(parameters, arguments, strict=True):
            text = text.replace(f"{{{{ {parameter} }}}}", argument)
        return text

    return CALL.sub(rendered, shipped(f"dbt/models/{name}.sql").read_text())


def create_views(pipeline: dlt.Pipeline) -> None:
    """Create the views in the dataset, in place of those that are there."""
    with open_client(pipeline) as client:
        names = [client.make_qualified_table_name(view) for view in MODELS]
        for name in reversed(names):
            client.execute_sql(f"DROP VIEW IF EXISTS {name}")
        for view, name in zip(MODELS, names, strict=True):
            client.execute_sql(f"CREATE VIEW {name} AS {model(view)}")
