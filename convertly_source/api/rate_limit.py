"""When the next request may be sent, for all threads together."""

import time
from threading import Lock

MINUTE = 60.0  # seconds; the API counts requests by the minute, and does not say when one begins


class Pace:
    """Spaces requests evenly, and holds all of them back when the API asks for it."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._lock, self._opens_at = Lock(), 0.0

    def wait(self) -> None:
        """Return when a request may be sent."""
        while (seconds := self._seconds_left()) > 0:
            time.sleep(seconds)

    def hold(self, seconds: float) -> None:
        """Let no request pass for that long."""
        with self._lock:
            self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def _seconds_left(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now >= self._opens_at:
                self._opens_at = now + self._interval
                return 0.0
            return self._opens_at - now
