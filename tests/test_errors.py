"""The tree of errors: what a caller can do next, and what is found in the errors of others."""

import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pymysql
import pytest
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import (
    MissingDependencyException,
    TerminalException,
    TransientException,
)
from dlt.destinations.exceptions import DestinationConnectionError
from helpers.script import assert_refused, backfill, load_from
from helpers.servers import free_port, mariadb, postgres

from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.errors import (
    BusyError,
    ConvertlyError,
    LimitError,
    ResponseError,
    SettingsError,
    UnavailableError,
    causes,
    explained,
)
from convertly_source.settings import TABLE_FORMATS

Serve = Callable[..., DemoAPI]


def test_each_error_has_an_exit_code() -> None:
    """A class tells programs what to do next, each with an exit code of its own."""
    kinds = (ConvertlyError, SettingsError, UnavailableError, ResponseError, LimitError)
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 5]
    assert BusyError.exit_code == 1
    assert {BusyError, *kinds[1:]} == {*ConvertlyError.__subclasses__()}


def test_only_an_unavailable_api_is_worth_a_retry() -> None:
    """Dlt's retry helpers give up on terminal errors."""
    assert issubclass(UnavailableError, TransientException)
    for kind in (SettingsError, ResponseError, LimitError):
        assert issubclass(kind, TerminalException)


def test_a_traceback_says_the_remedy() -> None:
    """Who runs a pipeline of their own sees what to do, from Python 3.11 on."""
    error = SettingsError("The API refused the key.", "Set CONVERTLY_API_KEY.")
    assert error.__notes__ == [error.remedy]
    if sys.version_info >= (3, 11):
        assert traceback.format_exception_only(error)[-1] == "Set CONVERTLY_API_KEY.\n"


def raised(error: Exception, outer: Exception) -> Exception:
    """Return `outer`, raised from `error`, as dlt wraps what a source raises."""
    try:
        raise outer from error
    except type(outer) as caught:
        return caught


def test_a_wrapped_error_is_found() -> None:
    """An error of this package is found wherever dlt has wrapped it, with its remedy."""
    error = LimitError("The quota is used up.", "See the plan.")
    wrapped = raised(raised(error, ValueError("inner")), RuntimeError("outer"))
    assert explained(wrapped) is error
    assert [type(cause) for cause in causes(wrapped)] == [RuntimeError, ValueError, LimitError]


def test_a_wrong_configuration_of_dlt_is_a_setting() -> None:
    """What dlt misses in its configuration is to be corrected there."""
    known = explained(ConfigurationException("Missing field.\nLong text."))
    assert isinstance(known, SettingsError)
    assert str(known) == "Missing field."


def test_a_connection_that_fails_names_its_first_cause() -> None:
    """For a destination that fails, the database's own words are shown, in one line."""
    cause = OSError("Could not set lock.\nDetails.")
    known = explained(raised(cause, DestinationConnectionError("DuckDb", "data", "failed", cause)))
    assert known
    assert (known.exit_code, str(known)) == (
        1,
        "The destination can't be used: Could not set lock.",
    )
    silent = explained(raised(OSError(), DestinationConnectionError("DuckDb", "d", "f", cause)))
    assert str(silent) == "The destination can't be used: OSError"


@pytest.mark.parametrize("error", [ValueError("unforeseen"), KeyError("x")])
def test_an_unforeseen_error_is_not_explained(error: Exception) -> None:
    """An error that no user can mend stays a traceback, for a report."""
    assert explained(error) is None


@pytest.mark.parametrize("command", [load_from, backfill])
@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("postgres", ["DESTINATION__POSTGRES__CREDENTIALS"]),
        ("sqlalchemy", ["DESTINATION__SQLALCHEMY__CREDENTIALS"]),
        ("snowflake", ["DESTINATION__SNOWFLAKE__CREDENTIALS"]),
        ("bigquery", ["DESTINATION__BIGQUERY__CREDENTIALS"]),
        ("redshift", ["DESTINATION__REDSHIFT__CREDENTIALS"]),
        ("clickhouse", ["DESTINATION__CLICKHOUSE__CREDENTIALS"]),
    ],
)
def test_missing_credentials_name_the_variable(
    serve: Serve, command: Any, destination: str, words: list[str]
) -> None:
    """Without credentials, or without its driver, a destination names what is missing."""
    done = command(serve(DemoAccount(5)), "--destination", destination)
    code = 1 if "pip install" in done.stderr else 2
    assert_refused(done, code, *(["pip install"] if code == 1 else words))


def test_a_missing_driver_names_the_packages(serve: Serve) -> None:
    """A driver that is not installed is an error with the command to install it."""
    url = {"DESTINATION__SNOWFLAKE__CREDENTIALS": "snowflake://user:secret@host/db?warehouse=w"}
    done = load_from(serve(DemoAccount(5)), "--destination", "snowflake", **url)
    assert_refused(done, 1, "needs more packages", 'pip install "convertly-source[snowflake]"')
    assert "secret" not in done.stderr


@pytest.mark.parametrize(("table_format", "library"), TABLE_FORMATS.items())
def test_a_missing_library_of_a_lake_is_named_before_reading(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, table_format: str, library: str
) -> None:
    """Without the extra of its table format, a load into a lake ends before it reads anything."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"dlt.common.libs.{library}", raising=False)
    api = serve(DemoAccount(5))
    lake = ("--destination", "filesystem", "--table-format", table_format)
    done = load_from(api, *lake, DESTINATION__FILESYSTEM__BUCKET_URL="lake")
    named = f'pip install "convertly-source[{table_format}]"'
    assert_refused(done, 1, "needs more packages", named)
    assert not api.requests


@pytest.mark.parametrize(
    ("package", "named"),
    [
        ("dlt[deltalake]", "convertly-source[delta]"),
        ("dlt[az]", "dlt[az]"),
        ("pandas", "pandas"),
    ],
)
def test_missing_packages_are_named_by_their_extra(package: str, named: str) -> None:
    """An extra of this package is named where there is one, else what dlt names."""
    error = explained(MissingDependencyException("A destination", [package]))
    assert error
    assert error.remedy == f'pip install "{named}"'


@pytest.mark.parametrize("command", [load_from, backfill])
@pytest.mark.parametrize(
    ("destination", "url"),
    [
        ("postgres", "postgresql://user:secret@127.0.0.1:{}/db"),
        ("sqlalchemy", "mysql+pymysql://user:secret@127.0.0.1:{}/db"),
    ],
)
def test_a_server_that_is_away_ends_with_1(
    serve: Serve, command: Any, destination: str, url: str
) -> None:
    """No server at that address: it may be back later, so no setting is to blame."""
    api = serve(DemoAccount(5))
    name = f"DESTINATION__{destination.upper()}__CREDENTIALS"
    done = command(api, "--destination", destination, **{name: url.format(free_port())})
    assert_refused(done, 1, "The destination can't be used", "start the server")
    assert "secret" not in done.stderr
    assert command is backfill or not api.requests


@pytest.fixture
def strict_postgres(servers: Any) -> Callable[[str, str, str], str]:
    """Return the URL of a PostgreSQL that asks a user for a password, in three parts."""
    address: str = servers(postgres)
    with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DROP ROLE IF EXISTS loader")
        cursor.execute("CREATE ROLE loader LOGIN PASSWORD 'right'")
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'hba_file'")
        rows = cursor.fetchall()
        with open(rows[0][0], "r+") as file:  # noqa: PTH123
            rules = file.read()
            if "loader" not in rules:
                file.seek(0)
                file.write(f"local all loader scram-sha-256\n{rules}")
        cursor.execute("SELECT pg_reload_conf()")

    def url(user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@localhost/{database}?{urlsplit(address).query}"

    return url


@pytest.mark.slow
@pytest.mark.parametrize("command", [load_from, backfill])
def test_postgres_that_refuses_ends_with_2(
    serve: Serve, strict_postgres: Callable[[str, str, str], str], command: Any
) -> None:
    """A wrong password, an unknown database or a missing right is a wrong setting."""
    api = serve(DemoAccount(5))
    for user, password, database, words in (
        ("loader", "wrong", "postgres", "authentication failed"),
        ("nobody", "wrong", "postgres", "does not exist"),
        ("loader", "right", "nowhere", "does not exist"),
        ("loader", "right", "postgres", "permission denied"),
    ):
        url = strict_postgres(user, password, database)
        done = command(api, "--destination", "postgres", DESTINATION__POSTGRES__CREDENTIALS=url)
        assert_refused(done, 2, words, "DESTINATION__POSTGRES__CREDENTIALS")


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize("command", [load_from, backfill])
def test_mariadb_that_refuses_ends_with_2(serve: Serve, servers: Any, command: Any) -> None:
    """A wrong password, an unknown database or a missing right is a wrong setting."""
    api = serve(DemoAccount(5))
    address = urlsplit(servers(mariadb))
    with (
        closing(
            pymysql.connect(host="127.0.0.1", port=address.port or 0, user="root")
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE OR REPLACE USER loader@'%' IDENTIFIED BY 'right'")
        cursor.execute("CREATE OR REPLACE USER loader@localhost IDENTIFIED BY 'right'")
        for host in ("%", "localhost"):
            cursor.execute(f"GRANT SELECT ON convertly.* TO loader@'{host}'")
    for user, password, database, words in (
        ("loader", "wrong", "convertly", "Access denied"),
        ("root", "", "nowhere", "Unknown database"),
        ("loader", "right", "convertly", "denied"),
    ):
        url = f"mysql+pymysql://{user}:{password}@127.0.0.1:{address.port}/{database}"
        done = command(api, "--destination", "sqlalchemy", DESTINATION__SQLALCHEMY__CREDENTIALS=url)
        assert_refused(done, 2, words, "DESTINATION__SQLALCHEMY__CREDENTIALS")
