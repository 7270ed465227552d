"""A Singer tap made with Meltano's SDK, newest first, with a day of look-back."""

import os
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import requests
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import BearerTokenAuthenticator
from singer_sdk.pagination import BaseOffsetPaginator

LIMIT = 100


class Pages(BaseOffsetPaginator):
    """Offsets, until the list ends or the page is older than the look-back."""

    def __init__(self, since: datetime | None) -> None:
        super().__init__(0, LIMIT)
        self._since = since

    def has_more(self, response: requests.Response) -> bool:
        """Whether there are jobs of interest behind this page."""
        page = response.json()
        is_recent = not self._since or (
            datetime.fromisoformat(page["jobs"][-1]["created_at"].replace("Z", "+00:00"))
            >= self._since
        )
        return page["pagination"]["hasMore"] and is_recent


class Jobs(RESTStream[int]):
    """The list of jobs."""

    name, path, url_base = "jobs", "/api/jobs", os.environ["API_URL"]
    primary_keys, replication_key = ("id",), "created_at"
    records_jsonpath = "$.jobs[*]"
    schema = th.PropertiesList(
        *(th.Property(name, th.StringType) for name in ("id", "job_type", "status")),
        *(
            th.Property(name, th.IntegerType)
            for name in ("total_files", "completed_files", "failed_files", "progress")
        ),
        th.Property("error_message", th.StringType),
        th.Property("created_at", th.DateTimeType),
        th.Property("completed_at", th.DateTimeType),
        th.Property("results", th.ObjectType(additional_properties=True)),
    ).to_dict()

    @property
    def authenticator(self) -> BearerTokenAuthenticator:
        """The key, in the header."""
        return BearerTokenAuthenticator(token=os.environ["API_KEY"])

    def get_new_paginator(self) -> Pages:
        """Stop a day behind the bookmark."""
        bookmark = self.get_starting_timestamp(None)
        return Pages(bookmark and bookmark - timedelta(days=1))

    def get_url_params(
        self,
        context: Any,  # noqa: ARG002 - the SDK's interface
        next_page_token: int | None,
    ) -> dict[str, Any]:
        """Ask for a page."""
        return {"limit": LIMIT, "offset": next_page_token or 0}


class TapJobs(Tap):
    """The tap."""

    name = "tap-jobs"

    def discover_streams(self) -> Iterable[Jobs]:
        """One stream."""
        return [Jobs(self)]


if __name__ == "__main__":
    TapJobs.cli(sys.argv[1:])
