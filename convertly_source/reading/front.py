"""How far a read of the list has come, and which page it can go on with."""

import sys
from datetime import datetime

from convertly_source.reading.job import ListedJob
from convertly_source.reading.pages import DisorderError, Listed, Page

NOWHERE = Page([], sys.maxsize, -1)


class Front:
    """All jobs older than `age` are handed over, and some of that age.

    Jobs of one age stand in any order, another one in each answer. They are complete when as many
    were met as there are places for them, in a list that kept its length meanwhile: at once if
    they kept their places too, else when the same ones are met again.
    """

    def __init__(self, since: datetime) -> None:
        self.count = 0  # jobs handed over
        self.is_short = False  # the jobs of `age` must be looked for again
        self._handed = set[str]()
        self._is_crowded = False  # the last page had no younger job than those of `age`
        self._is_suspect = False  # the last page had older jobs in new places
        self._total = -1
        self._begin_group(since)

    def _begin_group(self, age: datetime) -> None:
        self.age = age
        self._handed, self._counted = set[str](), set[str]()
        self._count_again()

    def _count_again(self) -> None:
        self._met, self._is_static = set[str](), True
        self.look_again()

    def look_again(self) -> None:
        """Forget where the last page was: the next one does not follow it."""
        self._last, self._places = NOWHERE, 0

    def joins(self, page: Page, *, is_long: bool) -> bool:
        """Whether no job can be missing between the last page and this one: it has an older job.

        Where one age fills pages there is none, and in a very long list it would cost too much.
        There, the list must be as long as it was, and where the pages overlap must stand the very
        same job, or one of that age: then the order may have changed.
        """
        place = page.end - 1 - self._last.rank
        if page.total == self._total and self._is_older(page.jobs[max(0, place + 1) :]):
            return False
        if page.begins_before(self.age):
            return True
        if not (self._is_crowded or is_long) or page.total != self._total or place < 0:
            return False
        meeting = page.jobs[place : place + 1]
        is_same = [job.key for job in meeting] == [self._last.jobs[-1].key]
        self._is_static &= is_same
        return is_same or [job.age for job in meeting] == [self.age]

    def take(self, page: Page) -> list[ListedJob]:
        """Move on over a page that joins; return its jobs that were not handed over before."""
        if page.total != self._total:
            self._total = page.total
            self._count_again()
        new = page.jobs[max(0, page.end - self._last.rank) :]
        self._meet(page, new)
        self._last = page
        self._is_crowded = page.youngest <= self.age
        is_end = page.rank <= 0 or not self._is_crowded
        self.is_short = is_end and not self._is_complete()
        until = self.age if self.is_short else page.youngest
        fresh = {job.key: job for job in page.jobs if self.age <= job.age <= until}
        batch = [job.row for key, job in fresh.items() if key not in self._handed]
        self.count += len(batch)
        if until > self.age:
            self._begin_group(until)
            self._meet(page, page.jobs)
            self._last = page
        self._handed |= {key for key, job in fresh.items() if job.age == self.age}
        return batch

    def _is_older(self, new: list[Listed]) -> bool:
        """Whether there are older jobs in new places: twice in a row, the list is not sorted.

        Once may be, as pages that are fetched ahead may be older than the one before them.
        """
        is_older = bool(new) and new[0].age < self.age
        if is_older and self._is_suspect:
            raise DisorderError
        self._is_suspect = is_older
        return is_older

    def _meet(self, page: Page, new: list[Listed]) -> None:
        """Count the jobs of `age` on a page, and the places that they take on its new part."""
        self._met |= {job.key for job in page.jobs if job.age == self.age}
        self._places += sum(job.age == self.age for job in new)

    def _is_complete(self) -> bool:
        """Whether all jobs of `age` were met; if that is not sure, count them once more."""
        is_complete = len(self._met) >= self._places
        if is_complete and not self._is_static and self._met != self._counted:
            self._counted = self._met
            self._count_again()
            return False
        return is_complete
