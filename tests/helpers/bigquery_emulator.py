"""Run `bqemulator`, in an environment of its own, with its defects mended.

Unlike BigQuery, it does not unpack what is uploaded, answers a query that fails as if it had found
nothing, can't end a session, and lets a column be qualified by the path of its table. It also hands
out the token that Google's client asks for.
"""

import gzip
import sys
from pathlib import Path
from typing import Any

import duckdb_extensions
import sqlglot
from bqemulator import server
from bqemulator.api.routes import jobs
from bqemulator.config import Settings
from bqemulator.domain.errors import InvalidQueryError
from bqemulator.jobs import executor
from sqlglot import exp

END_OF_SESSION = "CALL BQ.ABORT_SESSION()"
JSON_LINES = "NEWLINE_DELIMITED_JSON"
create_app, run_query = server.create_app, jobs.execute_query_job
load_json_lines = executor._LOAD_FORMAT_HANDLERS[JSON_LINES]


def load_packed(path: str, *more: Any) -> None:
    """Load a file that is packed."""
    file = Path(path)
    if file.read_bytes().startswith(b"\x1f\x8b"):
        file.write_bytes(gzip.decompress(file.read_bytes()))
    load_json_lines(path, *more)


async def run_strict_query(project: str, job: str, sql: str, *more: Any, **options: Any) -> Any:
    """Run a query, unless it names a column as `project.dataset.table.column`."""
    sql = sql.replace(END_OF_SESSION, "")
    for statement in filter(None, sqlglot.parse(sql, read="bigquery")):
        for column in statement.find_all(exp.Column):
            if column.db:
                raise InvalidQueryError(f"Unrecognized name: {column.parts[0]}")
    return await run_query(project, job, sql, *more, **options)


def token() -> dict[str, Any]:
    """Return what Google's client takes for a token."""
    return {"access_token": "any", "token_type": "Bearer", "expires_in": 3600}


def create_mended_app(context: Any) -> Any:
    """Return the app of the emulator."""
    app = create_app(context)
    app.add_api_route("/token", token, methods=["POST"])
    return app


if __name__ == "__main__":
    server.create_app = create_mended_app
    jobs.execute_query_job = run_strict_query
    jobs._SQL_EXECUTION_DOMAIN_ERRORS = ()  # which it doesn't answer as errors
    executor._LOAD_FORMAT_HANDLERS[JSON_LINES] = load_packed
    duckdb_extensions.import_extension("spatial")  # instead of DuckDB's download
    port = int(sys.argv[1])
    server.run_forever(Settings(rest_port=port, grpc_port=0, enable_format_extensions=False))
