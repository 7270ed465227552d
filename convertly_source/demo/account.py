"""An account that lives in memory: its jobs are created, progress, end and are cancelled."""

from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any
from uuid import UUID

from convertly_source.api.client import FINAL_STATUSES, Job

DEMO_START = datetime(2026, 5, 1, tzinfo=timezone.utc)
JOB_TYPES = ("convert", "compress", "media_tool", "transfer")


class DemoAccount:
    """Jobs that are created, progress, finish, fail and are cancelled; the same for the same seed.

    It begins with `size` jobs, one each `every` on average from 1 May 2026 on. Most have ended;
    the last few have not, and a few older ones are stuck.
    """

    def __init__(
        self, size: int = 3000, seed: int = 0, every: timedelta = timedelta(hours=1)
    ) -> None:
        self.jobs: list[Job] = []  # oldest first
        self._random = Random(seed)
        self._now = DEMO_START
        for number in range(size):
            self.create(gap=every * 2 * self._random.random())
            if number < size - 8 and number % 500 != 99:
                self.finish(self.jobs[-1], has_failed=self._random.random() < 0.08)
            elif number % 2:
                self.progress(self.jobs[-1])

    def create(self, gap: timedelta = timedelta(minutes=1), **fields: Any) -> Job:
        """Create a pending job, `gap` after the one before it; `fields` override the usual."""
        self._now += gap
        job: Job = {
            "id": str(UUID(int=self._random.getrandbits(128), version=4)),
            "job_type": self._random.choice(JOB_TYPES),
            "status": "pending",
            "total_files": self._random.randint(1, 4),
            "completed_files": 0,
            "failed_files": 0,
            "progress": 0,
            "error_message": None,
            "results": None,
            "created_at": _text(self._now),
            "completed_at": None,
        }
        self.jobs.append(job | fields)
        return self.jobs[-1]

    def progress(self, job: Job) -> None:
        """Move a job on, half of what is left; its results are not final yet."""
        job["status"] = "processing"
        job["progress"] = (job["progress"] + 100) // 2
        job["results"] = {"files": [{"filename": "part.webp"}]}

    def finish(self, job: Job, *, has_failed: bool = False) -> None:
        """End a job, with results in one of the shapes that the API is known or thought to have."""
        files = job["total_files"]
        job["status"] = "failed" if has_failed else "completed"
        job["completed_files" if not has_failed else "failed_files"] = files
        job["progress"] = job["progress"] if has_failed else 100
        job["error_message"] = "Unsupported codec." if has_failed else None
        job["results"] = None if has_failed else _results(self._random, files)
        job["completed_at"] = _text(_time(job["created_at"]) + timedelta(seconds=7 * files))

    def cancel(self, job: Job) -> None:
        """Take a pending job out of the account, as the API's `DELETE` does."""
        self.jobs = [other for other in self.jobs if other is not job]

    def unfinished(self) -> list[Job]:
        """List the jobs that have not ended, oldest first."""
        return [job for job in self.jobs if job["status"] not in FINAL_STATUSES]


def _results(random: Random, count: int) -> Any:
    """Make results of `count` files, in a shape of `random`'s choice."""
    files = [result_file(random, number) for number in range(count)]
    stored = {"id": files[0]["storedFileId"], "filename": "in.mp4", "mime_type": "video/mp4"}
    archive = {"filename": "assets.tgz", "downloadUrl": "data:application/gzip;base64,H4sIAAAA"}
    return random.choice(
        [
            {"files": files, "storage": {"saved": True, "notice": None}},
            {"files": [archive]},
            {"file": stored | {"size_bytes": random.randint(1, 2**36), "folder_id": None}},
            [{"filename": file["filename"], "download_url": file["downloadUrl"]} for file in files],
            [file["downloadUrl"] for file in files],
            files[0] | {"download_url": None},
            *(None, [], {}),
        ]
    )


def result_file(random: Random, number: int) -> dict[str, Any]:
    """Make one item of `results.files`."""
    size, saved = random.randint(10**4, 2**36), random.choice([92.6, 40, 7.25])
    return {
        "filename": f"hero-{number}.webp",
        "mimeType": "image/webp",
        "originalSize": size,
        "finalSize": int(size * (1 - saved / 100)),
        "savedPercent": saved,
        "appliedQuality": random.choice([82, 75.5]),
        "storedFileId": str(UUID(int=random.getrandbits(128), version=4)),
        "downloadUrl": f"https://files.convertly.sh/{number}.webp?token={random.getrandbits(64):x}",
    }


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
