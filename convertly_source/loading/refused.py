"""A load that the destination refuses: explained in two lines, and not kept for the next run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dlt
from dlt.pipeline.exceptions import PipelineStepFailed

from convertly_source.errors import refused_load


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
        refusal = refused_load(error)
        if not refusal:
            raise
        pipeline.abort_packages()
        raise refusal from error
    finally:
        log.removeFilter(_is_of_no_job)


def _is_of_no_job(record: logging.LogRecord) -> bool:
    """Whether a log record is not about a failed job: that is tried again, or the error tells."""
    return not (record.module == "load" and record.levelno >= logging.WARNING)
