"""A load that the destination refuses: explained in two lines, and not kept for the next run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dlt
from dlt.load.exceptions import LoadClientJobException
from dlt.pipeline.exceptions import PipelineStepFailed

from convertly_source.errors import ConvertlyError, causes

MAX_MESSAGE = 300  # characters


@contextmanager
def refusals_explained(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Raise `ConvertlyError` when a load of the pipeline within the `with` block is refused.

    It names the table and quotes the destination, in place of dlt's log lines and tracebacks. The
    refused package is dropped, and the state is what it was before, so that the next run reads its
    jobs again. Other errors are left alone.
    """
    log = logging.getLogger("dlt")
    log.addFilter(_is_of_no_job)
    try:
        yield
    except PipelineStepFailed as error:
        refusal = next(
            (cause for cause in causes(error) if isinstance(cause, LoadClientJobException)), None
        )
        if refusal is None:
            raise
        pipeline.abort_packages()
        table = (refusal.job_id or "").partition(".")[0]
        *_, reason = causes(refusal.client_exception)
        raise ConvertlyError(
            f"The destination refused rows of table {table}: {_first_line(reason)}",
            "Correct what it names, then run again: nothing of this load is kept, and its jobs are"
            " read again.",
        ) from error
    finally:
        log.removeFilter(_is_of_no_job)


def _is_of_no_job(record: logging.LogRecord) -> bool:
    """Whether a log record is about anything but a job that failed: the error has all of that."""
    return not (record.module == "load" and record.levelno >= logging.ERROR)


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)[:MAX_MESSAGE]
    return "".join(char if char.isprintable() else " " for char in line)
