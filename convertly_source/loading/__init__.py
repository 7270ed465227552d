"""Whole loads in a pipeline: what the command line, the backfill and the DAGs have in common."""

from convertly_source.loading.load import LoadResult, load_account
from convertly_source.loading.target import Target

__all__ = ["LoadResult", "Target", "load_account"]
