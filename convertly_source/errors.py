"""What can go wrong, by what to do next: the class for programs, `remedy` for people.

ConvertlyError
├── SettingsError      change the settings, then run again           exit code 2
├── UnavailableError   wait, then run again: nothing is lost          exit code 3
├── ResponseError      report it: the API answered something undocumented  exit code 4
└── LimitError         change the plan, or wait for the next period   exit code 5

`UnavailableError` is one of dlt's transient errors, the others are terminal: dlt's retry helpers
try the first again and give up on the others.
"""

from collections.abc import Iterator
from typing import ClassVar

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import DltException, TerminalException, TransientException
from dlt.destinations.exceptions import DestinationConnectionError


class ConvertlyError(DltException):
    """A run could not continue. The text tells what happened, `remedy` what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.setting = setting  # the name of the setting to change, where there is one


class SettingsError(ConvertlyError, TerminalException):
    """A setting is missing or wrong, or the API refused the key."""

    exit_code = 2


class UnavailableError(ConvertlyError, TransientException):
    """The API could not be reached, or kept failing: after 7 attempts, or two minutes."""

    exit_code = 3


class ResponseError(ConvertlyError, TerminalException):
    """The API answered something that its documentation does not describe."""

    exit_code = 4


class LimitError(ConvertlyError, TerminalException):
    """A quota or a plan limit was reached (402, 403, or a 429 that waiting doesn't end)."""

    exit_code = 5


def explained(error: BaseException) -> ConvertlyError | None:
    """Return the error that a person can act on, which dlt may have wrapped, else None."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, ConvertlyError):
            return cause
        if isinstance(cause, ConfigurationException):
            return SettingsError(_first_line(cause), "Correct the settings.")
        if isinstance(cause, DestinationConnectionError):
            return ConvertlyError(
                f"The destination can't be used: {_first_line(chain[-1])}",
                "Close what else holds the file, start the server, or correct the credentials; "
                "then run again: what was read is kept.",
            )
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from: dlt wraps what a source raises."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
