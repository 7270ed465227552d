"""The tree of errors: what a caller can do next, and what is found in dlt's own errors."""

import pytest
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import TerminalException, TransientException
from dlt.destinations.exceptions import DestinationConnectionError

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


def test_each_error_has_an_exit_code() -> None:
    """A class tells programs what to do next, each with an exit code of its own."""
    kinds = (ConvertlyError, SettingsError, UnavailableError, ResponseError, LimitError)
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 5]
    assert BusyError.exit_code == 1
    assert {BusyError, *kinds[1:]} == {*ConvertlyError.__subclasses__()}


def test_only_an_unavailable_api_is_worth_a_retry() -> None:
    """Dlt's retry helpers try that one again, and give up on the others."""
    assert issubclass(UnavailableError, TransientException)
    for kind in (SettingsError, ResponseError, LimitError):
        assert issubclass(kind, TerminalException)


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
