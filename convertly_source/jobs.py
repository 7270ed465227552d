"""Which jobs a run reads, and what it remembers of them for the next one."""

from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypedDict

from dlt.common import logger
from dlt.common.time import ensure_datetime_in_tz

from convertly_source.listing import BEGINNING, END, DisorderError, Listing
from convertly_source.results import OPEN_STATUSES, Row, fingerprint, rejected_record

LAG = timedelta(minutes=5)  # a job may become visible this late

Entry = tuple[str, str, str]  # of a job: created_at, status, fingerprint


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
    """Rows of one table."""

    table: str
    rows: list[dict[str, Any]]
    read: int = 0  # jobs it took to make them


class Run:
    """One way through the account: the new jobs, then what became of the unfinished ones.

    An iterator of batches. Whenever it has given one, `memory` says what holds once that one is
    loaded: a later run can go on from there.
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
        self.memory: Memory = {
            **memory,
            "open": {key: tuple(entry) for key, entry in memory["open"].items()},
            "recent": {key: tuple(entry) for key, entry in memory["recent"].items()},
            "rejected": list(memory["rejected"]),
            "read": 0,
        }
        self.listing = list_jobs(None)
        self._list_jobs, self._record, self._status = list_jobs, record, status
        self._before = memory["cursor"] and ensure_datetime_in_tz(memory["cursor"], timezone.utc)
        self._since = max(start, self._before - LAG) if self._before else start
        self._until = end - timedelta.resolution
        self._reached = self._before or BEGINNING
        self._missing = {key: _time(entry) for key, entry in self.memory["open"].items()}
        self._handed = array("q")
        self._batches = self._all()

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def _all(self) -> Iterator[Batch]:
        try:
            if self.memory["is_unordered"]:
                raise DisorderError
            yield from self._new()
            yield from self._unfinished()
        except DisorderError:
            yield from self._everything()

    def _new(self) -> Iterator[Batch]:
        """Read the range; what is created from now on waits for the next run."""
        if not self.listing.is_ordered:
            raise DisorderError
        for rows in self.listing.read(self._since, min(self._until, self.listing.newest or END)):
            yield from self._take(rows, is_prefix=True)

    def _unfinished(self) -> Iterator[Batch]:
        """Look for the unfinished jobs of earlier runs that were not in the range."""
        yield from self._gone(key for key, age in self._missing.items() if age >= self._since)
        for status in OPEN_STATUSES:
            if self._missing:
                for rows in self._list_jobs(status).read_all():
                    yield from self._take(self._awaited(rows))
        while self._missing:
            age = min(self._missing.values())
            pages = self.listing.search(age)
            for page in pages:
                yield from self._take(self._awaited(page.rows))
            if not pages[-1].shows(age):
                for rows in self.listing.read(age, age):
                    yield from self._take(self._awaited(rows))
            yield from self._gone(
                key for key, at in self._missing.items() if at == age or pages[-1].shows(at)
            )

    def _everything(self) -> Iterator[Batch]:
        """Read the whole list, since no part of it can be told to be older than another."""
        if not self.memory["is_unordered"]:
            logger.warning("The API lists jobs in no order of age: each run reads all of them.")
        self.memory.update(is_unordered=True, cursor=self._before)
        self.listing.without_order()
        already = set(self._handed)
        for rows in self.listing.read(BEGINNING, END):
            yield from self._take(
                [
                    row
                    for row in rows
                    if hash(row.id) not in already
                    and (
                        row.id in self._missing
                        or self._since <= (row.created_at or self._since) <= self._until
                    )
                ]
            )
        self.memory["cursor"] = max(self._reached, self._before or BEGINNING)
        yield from self._gone(iter(self._missing))

    def _awaited(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.id in self._missing]

    def _take(self, rows: list[Row], *, is_prefix: bool = False) -> Iterator[Batch]:
        usable = [row for row in rows if row.is_usable]
        rejected = {
            record["fingerprint"]: record
            for record in (rejected_record(row) for row in rows if not row.is_usable)
            if record["fingerprint"] not in self.memory["rejected"]
        }
        self.memory["rejected"] += rejected
        yield Batch("rejected_jobs", list(rejected.values()))
        self._reached = max([self._reached, *(row.created_at for row in usable if row.created_at)])
        horizon = self._reached - LAG if self._reached > BEGINNING else BEGINNING
        records = [self._record(row) for row in usable if self._is_changed(row, horizon)]
        self._handed.extend(hash(record["id"]) for record in records)
        recent = self.memory["recent"].items()
        self.memory["recent"] = {key: entry for key, entry in recent if _time(entry) >= horizon}
        if is_prefix and usable:
            self.memory["cursor"] = self._reached
        self.memory["read"] += len(rows)
        yield Batch("jobs", records, len(rows))

    def _is_changed(self, row: Row, horizon: datetime) -> bool:
        """Remember a job if later runs will meet it again; tell whether it is to be loaded."""
        key, created_at = row.id or "", row.created_at or BEGINNING
        self._missing.pop(key, None)
        known = self.memory["open"].pop(key, None) or self.memory["recent"].pop(key, None)
        entry = (created_at.isoformat(), row.status, fingerprint(row.job))
        if not row.is_final:
            self.memory["open"][key] = entry
        elif created_at >= horizon:
            self.memory["recent"][key] = entry
        statuses = (row.status, known[1] if known else row.status)
        return (self._status is None or self._status in statuses) and entry != known

    def _gone(self, keys: Iterator[str]) -> Iterator[Batch]:
        """Record unfinished jobs that are no longer listed, and follow them no longer."""
        entries = {key: self.memory["open"].pop(key) for key in list(keys)}
        noticed_at = datetime.now(timezone.utc)
        for key in entries:
            del self._missing[key]
        yield Batch(
            "removed_jobs",
            [
                {
                    "id": key,
                    "created_at": _time(entry),
                    "last_status": entry[1],
                    "noticed_at": noticed_at,
                }
                for key, entry in entries.items()
                if self._status in (None, entry[1])
            ],
        )


def _time(entry: Entry) -> datetime:
    return ensure_datetime_in_tz(entry[0], timezone.utc)
