"""The listed job: what the reading needs to know of one entry of the list."""

from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from dlt.common.json import PUA_CHARACTER_MAX, PUA_START, json
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.utils import digest128

from convertly_source.api.client import FINAL_STATUSES

BEGINNING = datetime.min.replace(tzinfo=timezone.utc)
END = datetime.max.replace(tzinfo=timezone.utc)
TICK = timedelta.resolution
LAG = timedelta(minutes=5)  # a job may become visible this late
# Of texts that dlt reads as values of other types.
DLT_MARKS = range(PUA_START, PUA_START + PUA_CHARACTER_MAX + 1)
UNKNOWN = -1  # the position of a job that was seen in another list
NOT_HELD = -2  # the position of a job that is not among those that were counted


class ListedJob(NamedTuple):
    """One entry of the list, with the two fields that the reading goes by."""

    raw: Any  # an object, unless the API lists something that is no object
    id: str | None
    created_at: datetime | None

    @classmethod
    def parse(cls, raw: Any) -> "ListedJob":
        """Read the id, as it is, and the time of creation; each is None where it can't be used."""
        if not isinstance(raw, dict):
            return cls(raw, None, None)
        identity = raw.get("id")
        is_usable = isinstance(identity, (str, int)) and not isinstance(identity, bool)
        key = str(identity) if is_usable else ""
        is_usable = bool(key.strip()) and ord(key[0]) not in DLT_MARKS
        return cls(raw, key if is_usable else None, parse_datetime(raw.get("created_at")))

    @property
    def is_usable(self) -> bool:
        """Whether the job can be stored: it has an id and a time of creation."""
        return self.id is not None and self.created_at is not None

    @property
    def status(self) -> str:
        """The status as text, empty when there is none."""
        return str(self.raw.get("status") or "") if isinstance(self.raw, dict) else ""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended. An undocumented status counts as unfinished."""
        return self.status in FINAL_STATUSES

    @property
    def content_hash(self) -> str:
        """A hash of everything but the results, which are loaded when the job has ended.

        Their links are signed again in each answer, so they would differ each time.
        """
        content = {**self.raw, "results": None} if isinstance(self.raw, dict) else self.raw
        return digest128(json.dumps(content, sort_keys=True))


class PositionedJob(NamedTuple):
    """A job of the list, and its position there."""

    created_at: datetime  # its own, else that of its older neighbour; BEGINNING where unknown
    key: str  # its id, or its content; with a number, if a younger job on the page has the same
    position: int  # the number of older jobs in the list
    job: ListedJob

    @property
    def is_duplicate(self) -> bool:
        """Whether the id belongs to a younger job on the same page."""
        return self.job.id is not None and self.key != self.job.id


def positioned(
    jobs: list[ListedJob], position: int, created_at: datetime | None
) -> list[PositionedJob]:
    """Return jobs, given oldest first, with their positions; `position` is that of the first.

    A job without a time is dated as its older neighbour. `created_at` is that of the first one,
    None dates all jobs alike.
    """
    alike, keys, placed = Counter[str](), list[str](), list[PositionedJob]()
    for job in reversed(jobs):
        key = job.id or job.content_hash
        alike[key] += 1
        keys.append(key if job.id and alike[key] == 1 else f"{key}\0{alike[key]}")
    time = created_at or BEGINNING
    for number, (job, key) in enumerate(zip(jobs, reversed(keys), strict=True)):
        if created_at and job.created_at:
            time = clipped(job.created_at)
        placed.append(PositionedJob(time, key, position + number, job))
    return placed


def clipped(created_at: datetime) -> datetime:
    """Return the nearest time between BEGINNING and END, which are no job's."""
    return min(max(created_at, BEGINNING + TICK), END - TICK)


def keys_of(entries: list[Any]) -> set[str]:
    """Return what tells entries of the list apart: their ids, or their content."""
    return {job.id or job.content_hash for job in map(ListedJob.parse, entries)}


def times_of(entries: list[Any]) -> list[datetime]:
    """Return the times of creation that entries of the list have."""
    return [job.created_at for job in map(ListedJob.parse, entries) if job.created_at]


class RemovedJob(NamedTuple):
    """A job that was unfinished and is no longer listed."""

    id: str
    created_at: datetime
    last_status: str


def parse_datetime(value: Any) -> datetime | None:
    """Return the timestamp that a text holds (UTC unless it says otherwise), else None."""
    if not isinstance(value, str):
        return None
    try:
        if value.endswith("Z"):  # as the API's sample; five times as fast
            timestamp = datetime.fromisoformat(value[:-1])
            if timestamp.tzinfo is None:
                return timestamp.replace(tzinfo=timezone.utc)
    except ValueError:
        pass
    try:
        return ensure_datetime_in_tz(value, timezone.utc)
    except (ValueError, OverflowError, OSError, TypeError):  # of dlt's and pendulum's parsers
        return None
