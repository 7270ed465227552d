"""The listed job: what the reading needs to know of one entry of the list."""

from datetime import datetime, timezone
from typing import Any, NamedTuple

from dlt.common.json import json
from dlt.common.time import ensure_datetime_in_tz
from dlt.common.utils import digest128

from convertly_source.api.client import FINAL_STATUSES


class ListedJob(NamedTuple):
    """One entry of the list, with the two fields that the reading goes by."""

    raw: Any  # a job is an object; an entry of the list may be any JSON value
    id: str | None
    created_at: datetime | None

    @classmethod
    def parse(cls, raw: Any) -> "ListedJob":
        """Read the id and the time of creation; each is None where it can't be used."""
        if not isinstance(raw, dict):
            return cls(raw, None, None)
        identity = raw.get("id")
        if isinstance(identity, (str, int)) and not isinstance(identity, bool):
            key = str(identity).strip() or None
        else:
            key = None
        return cls(raw, key, parse_datetime(raw.get("created_at")))

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

        Their links are signed anew in each answer, so they would differ each time.
        """
        content = self.raw
        if isinstance(content, dict):
            content = {name: value for name, value in content.items() if name != "results"}
        return digest128(json.dumps(content, sort_keys=True))


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
