"""A demo account and its API, for first steps and for tests."""

from convertly_source.demo.account import (
    DEMO_START,
    JOB_TYPES,
    DemoAccount,
    result_file,
)
from convertly_source.demo.server import DEMO_KEY, DemoAPI, Reply, newest_first

__all__ = [
    "DEMO_KEY",
    "DEMO_START",
    "JOB_TYPES",
    "DemoAPI",
    "DemoAccount",
    "Reply",
    "newest_first",
    "result_file",
]
