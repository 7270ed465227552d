"""Which jobs a run reads, and what it remembers of them for the next one."""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import datetime, timedelta
from itertools import pairwise, takewhile
from typing import NamedTuple, TypedDict

from dlt.common import logger

from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES
from convertly_source.reading.job import ListedJob, RemovedJob
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import BEGINNING, END, DisorderError

LAG = timedelta(minutes=5)  # a job may become visible this late
MOST_RECENT = 500  # jobs that are kept whole until it is known whether to remember them
SEARCH = 4  # pages that cost about as much as to search for one

Entry = tuple[datetime, str, str]  # of a job: created_at, status, fingerprint


class RunState(TypedDict):
    """What a run leaves to the next one, in the state of the pipeline."""

    cursor: datetime | None  # every job that is older is loaded
    known: dict[str, Entry]  # jobs that have not ended, or are no more than LAG behind the cursor
    is_unordered: bool  # the API's list was seen to have no order
    jobs_read: int  # jobs read so far, by a run that has not come to its end


def new_state() -> RunState:
    """Remember nothing."""
    return RunState(cursor=None, known={}, is_unordered=False, jobs_read=0)


def end_of_cluster(ages: list[datetime], gap: timedelta) -> datetime:
    """Give the last of the sorted ages that stand no further apart than that."""
    near = takewhile(lambda pair: pair[1] - pair[0] <= gap, pairwise(ages))
    return max([ages[0], *(later for _, later in near)])


class Changes(NamedTuple):
    """What a run has found: jobs to load, jobs that can't be stored, or jobs that are gone.

    Only one of the three, since a load may end between two of them.
    """

    jobs: Sequence[ListedJob] = ()
    rejected: Sequence[ListedJob] = ()
    removed: Sequence[RemovedJob] = ()
    jobs_read: int = 0


class IncrementalRun:
    """One way through the account: the new jobs, then what became of the unfinished ones.

    Whenever it has given changes, `state` says what holds once that one is loaded: a later run
    can go on from there.
    """

    def __init__(
        self,
        listing: Listing,
        status: str | None,
        state: RunState,
        window: tuple[datetime, datetime],
    ) -> None:
        self._state = deepcopy(state)
        self._state["jobs_read"] = 0
        self._recent = dict[str, tuple[datetime, ListedJob]]()  # ended, and met by the next run
        self._horizon = BEGINNING  # it will meet those of this age or younger
        self.listing, self._status = listing, status
        self._cursor, (self._since, end) = state["cursor"], window
        if self._cursor:
            self._since = max(self._since, self._cursor - LAG)
        self._until = end - timedelta.resolution
        self._reached = self._cursor or BEGINNING
        known = state["known"].items()
        self._missing = {key: at for key, (at, status, _) in known if status not in FINAL_STATUSES}
        self._handed = array("q")  # hashes of ids
        self.changes = self._all()

    @property
    def state(self) -> RunState:
        """What to remember. Hashing takes time, so it is asked for when a run stops."""
        known = dict(self._state["known"])
        for key, (created_at, row) in self._recent.items():
            known[key] = created_at, row.status, row.content_hash
        return {**self._state, "known": known}

    def _all(self) -> Iterator[Changes]:
        """Read; what is created from now on waits for the next run."""
        if self.listing.is_ordered and not self._state["is_unordered"]:
            with suppress(DisorderError):
                newest = self.listing.first.youngest
                for rows in self.listing.read(self._since, min(self._until, newest)):
                    new = [row for row in rows if self._is_in_range(row, newest)]
                    yield from self._take(new, is_prefix=True)
                yield from self._unfinished()
                return
        yield from self._everything()

    def _unfinished(self) -> Iterator[Changes]:
        """Look for the unfinished jobs of earlier runs that were not in the range."""
        yield self._gone(since=self._since)
        for status in OPEN_STATUSES:
            if self._missing:
                for rows in self.listing.in_status(status):
                    yield from self._take([row for row in rows if row.id in self._missing])
        while self._missing:
            ages = sorted(self._missing.values())
            page = self.listing.search(ages[0])
            until = end_of_cluster(ages, SEARCH * (page.youngest - page.oldest))
            fruitless = 0
            for rows in self.listing.read(ages[0], until, page):
                found = [row for row in rows if row.id in self._missing]
                yield from self._take(found)
                fruitless = 0 if found else fruitless + 1
                if fruitless > SEARCH and self.listing.reached > ages[0]:
                    break  # they stand further apart than it seemed
            yield self._gone(before=self.listing.reached)

    def _everything(self) -> Iterator[Changes]:
        """Read the whole list: without an order, no part of it is known to be older."""
        if not self._state["is_unordered"]:
            logger.warning("The API lists jobs in no order of age: each run reads all of them.")
        self._state["is_unordered"], self._state["cursor"] = True, self._cursor
        self.listing.without_order()
        already = set(self._handed)
        for rows in self.listing.read(BEGINNING, END):
            rest = [row for row in rows if hash(row.id) not in already]
            due = [row for row in rest if self._is_in_range(row) or row.id in self._missing]
            yield from self._take(due)
        self._state["cursor"] = self._reached
        yield self._gone()

    def _is_in_range(self, row: ListedJob, until: datetime = END) -> bool:
        until = min(until, self._until)
        return not row.created_at or self._since <= row.created_at <= until

    def _take(self, rows: list[ListedJob], *, is_prefix: bool = False) -> Iterator[Changes]:
        yield Changes(rejected=[row for row in rows if not row.is_usable])
        usable = [row for row in rows if row.is_usable]
        self._reached = max([self._reached, *(row.created_at for row in usable if row.created_at)])
        self._horizon = max(self._reached, BEGINNING + LAG) - LAG
        changed = [row for row in usable if self._is_news(row)]
        self._handed.extend(hash(row.id) for row in changed)
        self._recent = {
            key: recent for key, recent in self._recent.items() if recent[0] >= self._horizon
        }
        known = self._state["known"].items()
        self._state["known"] = {
            key: entry
            for key, entry in known
            if entry[1] not in FINAL_STATUSES or entry[0] >= self._horizon
        }
        self._state["jobs_read"] += len(rows)
        if is_prefix and usable:
            self._state["cursor"] = self._reached
        yield Changes(changed, jobs_read=len(rows))

    def _is_news(self, row: ListedJob) -> bool:
        """Tell whether a job is to be loaded, and remember it if later runs will meet it again."""
        key, created_at = row.id or "", row.created_at or BEGINNING
        self._missing.pop(key, None)
        _, status, known = self._state["known"].pop(key, (created_at, row.status, ""))
        if known or not row.is_final:
            content = row.content_hash
            self._state["known"][key] = created_at, row.status, content
            if content == known:
                return False
        elif created_at >= self._horizon and len(self._recent) < MOST_RECENT:
            self._recent[key] = created_at, row
        elif created_at >= self._horizon:
            self._state["known"][key] = created_at, row.status, row.content_hash
        return self._status in (None, status, row.status)

    def _gone(self, since: datetime = BEGINNING, before: datetime = END) -> Changes:
        """Record unfinished jobs of some ages that are no longer listed; follow them no longer."""
        gone = [key for key, age in self._missing.items() if since <= age < before]
        entries = {key: self._state["known"].pop(key) for key in gone}
        for key in gone:
            del self._missing[key]
        removed = [
            RemovedJob(key, created_at, status)
            for key, (created_at, status, _) in entries.items()
            if self._status in (None, status)
        ]
        return Changes(removed=removed)
