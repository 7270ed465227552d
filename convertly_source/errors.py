"""What can go wrong, by what to do next: the class for programs, `remedy` for people.

ConvertlyError          do as `remedy` says, then run again               exit code 1
├── SettingsError       change the settings, then run again               exit code 2
├── UnavailableError    wait, then run again: nothing is lost             exit code 3
├── ResponseError       report it: the API's answer is undocumented       exit code 4
├── LimitError          change the plan, or wait for the next period      exit code 5
└── BusyError           wait for another load to end                      exit code 1

`SettingsError`, `ResponseError` and `LimitError` are terminal errors of dlt, on which its retry
helpers give up. `UnavailableError` is a transient one.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import DestinationException
from dlt.common.exceptions import (
    DltException,
    MissingDependencyException,
    TerminalException,
    TransientException,
)
from dlt.load.exceptions import LoadClientJobException
from dlt.pipeline.exceptions import PipelineStepFailed

EXTRAS = {  # extras of dlt, and those of this package that include them
    "bigquery": "bigquery",
    "clickhouse": "clickhouse",
    "databricks": "databricks",
    "deltalake": "delta",
    "ducklake": "ducklake",
    "motherduck": "motherduck",
    "postgres": "postgres",
    "pyiceberg": "iceberg",
    "redshift": "redshift",
    "s3": "s3",
    "snowflake": "snowflake",
    "sqlalchemy": "sqlalchemy",
}
MAX_MESSAGE = 300  # characters of what a database or the API says
REPORT = "Run again. If it happens again, report it to the maintainers of convertly-source."
REFUSALS = re.compile(  # how drivers report a database that refuses the login or lacks rights
    "access denied|authentication failed|command denied|incorrect username or password"
    r"|insufficient privileges|no password supplied|not authorized|permission denied"
    r"|unknown database|(database|role) \S+ does not exist",
    re.IGNORECASE,
)


class ConvertlyError(DltException):
    """A run could not continue. The text tells what happened, `remedy` what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.__notes__ = [remedy]  # a traceback ends with them, from Python 3.11 on
        self.setting = setting  # the name of the setting to change, where there is one


class BusyError(ConvertlyError):
    """Another load into the same target is under way."""

    def __init__(self, place: str, since: str | None = None) -> None:
        super().__init__(
            f"Another load into {place} is under way{f', since {since}' if since else ''}.",
            "Run again when it has ended.",
            setting="wait_seconds",
        )


class SettingsError(ConvertlyError, TerminalException):
    """A setting is missing or wrong, or the API refused the key."""

    exit_code = 2


class UnavailableError(ConvertlyError, TransientException):
    """The API is unreachable, keeps failing, or changes its list faster than it can be read."""

    exit_code = 3


class ResponseError(ConvertlyError, TerminalException):
    """The API answered something that its documentation does not describe."""

    exit_code = 4

    def __init__(self, message: str, remedy: str = REPORT, setting: str | None = None) -> None:
        super().__init__(message, remedy, setting)


class LimitError(ConvertlyError, TerminalException):
    """A quota or a plan limit was reached (402, 403, or a 429 that waiting doesn't end)."""

    exit_code = 5


def explained(error: BaseException) -> ConvertlyError | None:
    """Return the error that a person can act on, which dlt may have wrapped, else None."""
    for cause in causes(error):
        if isinstance(cause, ConvertlyError):
            return cause
        if isinstance(cause, ConfigurationException):
            # dlt lists each variable that it has looked for
            variable = re.search(r"\bDESTINATION__[A-Z]+__CREDENTIALS", str(cause))
            remedy = f"Set {variable[0]}." if variable else "Correct the settings."
            return SettingsError(_first_line(cause), remedy)
        if isinstance(cause, MissingDependencyException):
            packages = " ".join(f'"{_own_extra(package)}"' for package in cause.dependencies)
            return ConvertlyError(f"{cause.caller} needs more packages.", f"pip install {packages}")
    return refused_load(error) or _failed_destination(error)


def _own_extra(package: str) -> str:
    """Return the extra of this package that has an extra of dlt, and what else it takes."""
    extra = re.fullmatch(r"dlt\[(\w+)\]", package)
    return f"convertly-source[{EXTRAS[extra[1]]}]" if extra and extra[1] in EXTRAS else package


def _failed_destination(error: BaseException) -> ConvertlyError | None:
    for cause in causes(error):
        if isinstance(cause, PipelineStepFailed) and cause.step in ("sync", "load"):
            destination = cause.pipeline.destination
            return destination_error(cause, destination.destination_name if destination else "")
        if isinstance(cause, DestinationException):
            return destination_error(cause, "")
    return None


def destination_error(error: BaseException, destination: str) -> ConvertlyError:
    """Return the error for a destination that can't be used; retrying helps unless it refused."""
    *_, reason = causes(error)
    message = f"The destination can't be used: {_first_line(reason)}"
    if REFUSALS.search(str(reason)):
        variable = f": DESTINATION__{destination.upper()}__CREDENTIALS" if destination else ""
        return SettingsError(message, f"Correct the credentials or rights{variable}.")
    return ConvertlyError(
        message,
        "Close what else holds the file, start the server, free space, or correct the credentials; "
        "then run again.",
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from: dlt wraps what a source raises."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def refused_load(error: BaseException) -> ConvertlyError | None:
    """Return the error for rows that a destination did not take, None for other causes."""
    for cause in causes(error):
        if isinstance(cause, LoadClientJobException):
            table = (cause.job_id or "").partition(".")[0]
            *_, reason = causes(cause.client_exception)
            return ConvertlyError(
                f"The destination refused rows of table {table}: {_first_line(reason)}",
                "Correct what it names, then run again: the jobs are read again.",
            )
    return None


def printable(text: str) -> str:
    """Return a text as one short line."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_MESSAGE])


def _first_line(error: BaseException) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))
