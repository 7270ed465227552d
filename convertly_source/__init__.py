"""A dlt source for the jobs of a Convertly account (https://convertly.sh)."""

from convertly_source.source import convertly_source

__all__ = ["convertly_source"]
