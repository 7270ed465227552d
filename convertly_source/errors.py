"""What can go wrong, by what to do next. The class says it to programs, `remedy` to people.

ConvertlyError
├── SettingsError      change the settings, then run again           exit code 2
├── UnavailableError   wait, then run again: nothing is lost          exit code 3
├── ResponseError      report it: the API answered something unknown  exit code 4
└── LimitError         change the plan, or wait for the next period   exit code 5

`UnavailableError` is one of dlt's transient errors, the others are terminal: dlt's retry helpers
try the first again and give up on the others.
"""

from typing import ClassVar

from dlt.common.exceptions import DltException, TerminalException, TransientException


class ConvertlyError(DltException):
    """A run could not go on. The text says what happened, `remedy` what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class SettingsError(ConvertlyError, TerminalException):
    """A setting is missing or wrong, or the API refused the key."""

    exit_code = 2


class UnavailableError(ConvertlyError, TransientException):
    """The API could not be reached, or kept failing for more than a minute."""

    exit_code = 3


class ResponseError(ConvertlyError, TerminalException):
    """The API answered something that its documentation does not describe."""

    exit_code = 4


class LimitError(ConvertlyError, TerminalException):
    """A quota or a plan limit stands in the way (402, 403, or 429 that does not pass)."""

    exit_code = 5
