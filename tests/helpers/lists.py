"""Lists as an API may sort them, and APIs that do not keep to their documentation."""

import random
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from convertly_source.api.client import Job
from convertly_source.demo import DemoAccount, DemoAPI, newest_first

Order = Callable[[list[Job]], list[Job]]

RESTLESS = random.Random(0)


def oldest_first(jobs: list[Job]) -> list[Job]:
    """List the oldest jobs first."""
    return newest_first(jobs)[::-1]


def in_no_order(jobs: list[Job]) -> list[Job]:
    """List the newest, the oldest, the second newest, the second oldest, ..."""
    ordered = newest_first(jobs)
    half = (len(jobs) + 1) // 2
    pairs = zip_longest(ordered[:half], ordered[half:][::-1])
    return [job for job in chain.from_iterable(pairs) if job]


def restless(jobs: list[Job]) -> list[Job]:
    """List the newest first, those of one age in another order each time."""
    return newest_first(RESTLESS.sample(jobs, len(jobs)))


def shuffled(jobs: list[Job]) -> list[Job]:
    """List jobs in another order each time."""
    return RESTLESS.sample(jobs, len(jobs))


def old_page_swapped(jobs: list[Job]) -> list[Job]:
    """List the newest first, but for two jobs far down the list."""
    ordered = newest_first(jobs)
    if len(jobs) > 33:
        ordered[-7], ordered[-33] = ordered[-33], ordered[-7]
    return ordered


class Planned(DemoAPI):
    """Lists jobs of one `created_at` in an order that follows from offset and limit."""

    def __init__(self, account: DemoAccount, seed: int = 0, order: Order = newest_first) -> None:
        super().__init__(account)
        self._seed, self._order = seed, order

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with an order of its own."""
        plan = random.Random(f"{self._seed} {limit} {offset}")
        self.order = lambda jobs: self._order(plan.sample(jobs, len(jobs)))
        return super().page(limit, offset, status)


class Clamping(DemoAPI):
    """Gives 37 jobs a page at most, whatever it is asked for."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer less."""
        return super().page(min(limit, 37), offset, status)


class OneByOne(DemoAPI):
    """Gives one job a page."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer next to nothing."""
        return super().page(min(limit, 1), offset, status)


class Ragged(DemoAPI):
    """Gives fewer jobs than asked for, another number each time."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer less."""
        return super().page(max(4, limit - 7 * len(self.requests)), offset, status)


class HasAlwaysMore(DemoAPI):
    """Says that there is more, on the last page and after it."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with a wrong `hasMore`."""
        body = super().page(limit, offset, status)
        body["pagination"]["hasMore"] = True
        return body


class SaysTooMany(DemoAPI):
    """Counts 40 jobs that it does not list."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with a wrong `total`."""
        body = super().page(limit, offset, status)
        body["pagination"]["total"] += 40
        return body


class Growing(DemoAPI):
    """Counts one more job in each answer, without one being there."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with a wrong `total`."""
        body = super().page(limit, offset, status)
        body["pagination"]["total"] += len(self.requests)
        return body


class Shrinking(DemoAPI):
    """Counts one job less in each answer, without one being gone."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with a wrong `total`."""
        body = super().page(limit, offset, status)
        said = body["pagination"]["total"] - min(len(self.requests), 20) + 1
        body["pagination"]["total"] = max(0, said)
        return body


class SamePage(DemoAPI):
    """Gives the first page whatever the offset, and says that it is what was asked for."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer the first page."""
        body = super().page(limit, 0, status)
        body["pagination"]["offset"] = offset
        return body


class IgnoresOffset(DemoAPI):
    """Gives the first page whatever the offset, and says so."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:  # noqa: ARG002
        """Answer the first page."""
        return super().page(limit, 0, status)


class ListsOneTwice(DemoAPI):
    """Lists its oldest job a second time, in place of the one before it."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with a job in two places."""
        body = super().page(limit, offset, status)
        last = body["pagination"]["total"] - 1
        if offset <= last - 1 and last < offset + len(body["jobs"]) and status is None:
            body["jobs"][last - 1 - offset] = body["jobs"][last - offset]
        return body


class OneTimeEach(DemoAPI):
    """Gives all jobs of a page one `created_at`, another one in each answer."""

    def page(self, limit: int, offset: int, status: str | None) -> dict[str, Any]:
        """Answer with jobs of one time."""
        body = super().page(limit, offset, status)
        created_at = f"2026-05-01T00:{len(self.requests) % 60:02}:00Z"
        return body | {"jobs": [job | {"created_at": created_at} for job in body["jobs"]]}
