"""Loads that fail: explained in two lines instead of dlt's log, and not kept for the next run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dlt
from dlt.pipeline.exceptions import PipelineStepFailed

from convertly_source.errors import refused_load


@contextmanager
def refusals_explained(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Raise `ConvertlyError` when a load of the pipeline within the `with` block is refused.

    It names the table and quotes the destination. The refused package is dropped, and the state is
    what it was before, so that the next run reads its jobs again. Other errors are left alone.
    """
    try:
        yield
    except PipelineStepFailed as error:
        refusal = refused_load(error)
        if not refusal:
            raise
        pipeline.abort_packages()
        raise refusal from error


@contextmanager
def without_failures_in_the_log() -> Iterator[None]:
    """Keep tracebacks and failed jobs out of dlt's log: a failure is retried, or raised."""
    log = logging.getLogger("dlt")
    log.addFilter(_is_no_failure)
    try:
        yield
    finally:
        log.removeFilter(_is_no_failure)


def _is_no_failure(record: logging.LogRecord) -> bool:
    is_of_a_job = record.module == "load" and record.levelno >= logging.WARNING
    return not (is_of_a_job or record.exc_info)
