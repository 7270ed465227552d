"""Whole loads in a pipeline: what the command line, the backfill and the DAGs have in common."""

from convertly_source.loading.load import LoadResult, load_account, verify_account
from convertly_source.loading.target import Target
from convertly_source.loading.verify import VerifyResult

__all__ = ["LoadResult", "Target", "VerifyResult", "load_account", "verify_account"]
