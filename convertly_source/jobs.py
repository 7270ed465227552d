"""Which jobs a run reads, and what it remembers of them for the next one."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypedDict

from dlt.common import logger
from dlt.common.time import ensure_datetime_in_tz

from convertly_source.listing import Listing
from convertly_source.pages import BEGINNING, END, DisorderError
from convertly_source.results import OPEN_STATUSES, Row, fingerprint, rejected_record

LAG = timedelta(minutes=5)  # a job may become visible this late

Entry = list[str]  # of a job: created_at, status, fingerprint


class Memory(TypedDict):
    """What a run leaves to the next one, in the state of the pipeline."""

    cursor: datetime | None  # every job that is older is loaded
    open: dict[str, Entry]  # the jobs that had not ended
    recent: dict[str, Entry]  # those that had, no more than LAG older than the cursor
    rejected: list[str]  # fingerprints
    is_unordered: bool  # the API's list was seen to have no order
    read: int  # jobs read so far, by a run that has not come to its end


def new_memory() -> Memory:
    """Remember nothing."""
    return Memory(cursor=None, open={}, recent={}, rejected=[], is_unordered=False, read=0)


class Batch(NamedTuple):
    """Rows of one table, and the number of jobs that were read for them."""

    table: str
    rows: list[dict[str, Any]]
    read: int = 0


class Run:
    """One way through the account: the new jobs, then what became of the unfinished ones.

    Whenever it has given a batch, `memory` says what holds once that one is loaded: a later run
    can go on from there.
    """

    def __init__(
        self,
        list_jobs: Callable[[str | None], Listing],
        record: Callable[[Row], dict[str, Any]],
        status: str | None,
        memory: Memory,
        window: tuple[datetime, datetime],
    ) -> None:
        start, end = window
        self.memory = deepcopy(memory)
        self.memory["read"] = 0
        self.listing = list_jobs(None)
        self._list_jobs, self._record, self._status = list_jobs, record, status
        self._cursor = _time(memory["cursor"]) if memory["cursor"] else None
        self._reached = self._cursor or BEGINNING
        self._since = max(start, self._cursor - LAG) if self._cursor else start
        self._until = end - timedelta.resolution
        self._missing = {key: _time(entry[0]) for key, entry in memory["open"].items()}
        self._handed = array("q")  # hashes of ids
        self.batches = self._all()

    def _all(self) -> Iterator[Batch]:
        """Read; what is created from now on waits for the next run."""
        try:
            if self.memory["is_unordered"] or not self.listing.pages.is_ordered:
                yield from self._everything()
                return
            until = min(self._until, self.listing.newest or END)
            for rows in self.listing.read(self._since, until):
                yield from self._take(rows, is_prefix=True)
            yield from self._unfinished()
        except DisorderError:
            yield from self._everything()

    def _unfinished(self) -> Iterator[Batch]:
        """Look for the unfinished jobs of earlier runs that were not in the range."""
        yield self._gone(key for key, age in self._missing.items() if age >= self._since)
        for status in OPEN_STATUSES:
            if self._missing:
                for rows in self._list_jobs(status).read_all():
                    yield from self._take(self._awaited(rows))
        while self._missing:
            age = min(self._missing.values())
            pages = self.listing.search(age)
            for page in pages:
                yield from self._take(self._awaited(page.rows))
            last = pages[-1]
            if not last.shows(age):
                for rows in self.listing.read(age, age):
                    yield from self._take(self._awaited(rows))
            yield self._gone(
                key for key, at in self._missing.items() if at == age or last.shows(at)
            )

    def _everything(self) -> Iterator[Batch]:
        """Read the whole list: without an order, no part of it is known to be older."""
        if not self.memory["is_unordered"]:
            logger.warning("The API lists jobs in no order of age: each run reads all of them.")
        self.memory["is_unordered"], self.memory["cursor"] = True, self._cursor
        self.listing.pages.without_order()
        already = set(self._handed)
        for rows in self.listing.read(BEGINNING, END):
            yield from self._take(
                [row for row in rows if hash(row.id) not in already and self._is_due(row)]
            )
        self.memory["cursor"] = self._reached
        yield self._gone(self._missing)

    def _is_due(self, row: Row) -> bool:
        age = row.created_at or self._since
        return row.id in self._missing or self._since <= age <= self._until

    def _awaited(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.id in self._missing]

    def _take(self, rows: list[Row], *, is_prefix: bool = False) -> Iterator[Batch]:
        yield self._rejected([row for row in rows if not row.is_usable])
        usable = [row for row in rows if row.is_usable]
        self._reached = max([self._reached, *(row.created_at for row in usable if row.created_at)])
        horizon = max(BEGINNING + LAG, self._reached) - LAG
        records = [self._record(row) for row in usable if self._is_changed(row, horizon)]
        self._handed.extend(hash(record["id"]) for record in records)
        recent = self.memory["recent"].items()
        self.memory["recent"] = {key: entry for key, entry in recent if _time(entry[0]) >= horizon}
        self.memory["read"] += len(rows)
        if is_prefix and usable:
            self.memory["cursor"] = self._reached
        yield Batch("jobs", records, len(rows))

    def _is_changed(self, row: Row, horizon: datetime) -> bool:
        """Remember a job if later runs will meet it again; tell whether it is to be loaded."""
        key, created_at = row.id or "", row.created_at or BEGINNING
        self._missing.pop(key, None)
        known = self.memory["open"].pop(key, None) or self.memory["recent"].pop(key, None)
        entry = [created_at.isoformat(), row.status, fingerprint(row.job)]
        if not row.is_final:
            self.memory["open"][key] = entry
        elif created_at >= horizon:
            self.memory["recent"][key] = entry
        statuses = (row.status, known[1] if known else row.status)
        return entry != known and self._status in (None, *statuses)

    def _rejected(self, rows: list[Row]) -> Batch:
        """Record jobs that can't be stored, once."""
        records = {record["fingerprint"]: record for record in map(rejected_record, rows)}
        new = [key for key in records if key not in self.memory["rejected"]]
        self.memory["rejected"] += new
        return Batch("rejected_jobs", [records[key] for key in new])

    def _gone(self, keys: Iterable[str]) -> Batch:
        """Record unfinished jobs that are no longer listed, and follow them no longer."""
        rows = []
        for key in list(keys):
            del self._missing[key]
            created_at, status, _ = self.memory["open"].pop(key)
            if self._status in (None, status):
                rows.append(
                    {
                        "id": key,
                        "created_at": _time(created_at),
                        "last_status": status,
                        "noticed_at": datetime.now(timezone.utc),
                    }
                )
        return Batch("removed_jobs", rows)


def _time(value: str | datetime) -> datetime:
    return ensure_datetime_in_tz(value, timezone.utc)
