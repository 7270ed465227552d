"""How far a read of the list has come, and which page it can go on with."""

import sys
from datetime import datetime

from convertly_source.pages import DisorderError, Listed, Page
from convertly_source.results import Row

NOWHERE = Page([], sys.maxsize, -1)


class Front:
    """All jobs older than `age` are handed over, and some of that age.

    Jobs of one age stand in any order, another one in each answer. They are complete when as many
    were met as there are places for them, in a list that kept its length meanwhile.
    """

    def __init__(self, since: datetime) -> None:
        self.age = since
        self.count = 0  # jobs handed over
        self.is_short = False  # the last page ended the jobs of `age`, and some were not met
        self._is_crowded = False  # the last page had no younger job than those of `age`
        self._handed, self._met, self._total = set[str](), set[str](), -1
        self.look_again()

    def look_again(self) -> None:
        """Forget where the last page was: the next one does not follow it."""
        self._last, self._places = NOWHERE, 0

    def joins(self, page: Page, *, is_long: bool) -> bool:
        """Whether no job can be missing between the last page and this one: it has an older job.

        Where one age fills pages there is none, and in a very long list it would cost too much.
        There, a job of that age must stand where the pages overlap (or the very same), in a list
        that kept its length. That only seems to join: if one job was created meanwhile and another
        one vanished, two jobs of one age may have changed places.
        """
        place = page.end - 1 - self._last.rank
        return page.begins_before(self.age) or (
            (self._is_crowded or is_long)
            and page.total == self._total
            and place >= 0
            and any(
                job.age == self.age or job.key == self._last.jobs[-1].key
                for job in page.jobs[place : place + 1]
            )
        )

    def take(self, page: Page) -> list[Row]:
        """Move on over a page that joins; return its jobs that were not handed over before."""
        if page.total != self._total:
            self._total, self._met = page.total, set()
            self.look_again()
        new = page.jobs[max(0, page.end - self._last.rank) :]
        if self._last.jobs and new and new[0].age < self.age:
            raise DisorderError
        self._meet(page, new)
        self._is_crowded = page.youngest <= self.age
        is_end = page.rank <= 0 or not self._is_crowded
        self.is_short = is_end and len(self._met) < self._places
        until = self.age if self.is_short else page.youngest
        fresh = {job.key: job for job in page.jobs if self.age <= job.age <= until}
        batch = [job.row for key, job in fresh.items() if key not in self._handed]
        if until > self.age:
            self.age, self._handed, self._met, self._places = until, set(), set(), 0
            self._meet(page, page.jobs)
        self._handed |= self._met
        self._last = page
        self.count += len(batch)
        return batch

    def _meet(self, page: Page, new: list[Listed]) -> None:
        """Count the jobs of `age` on a page, and the places that they take on its new part."""
        self._met |= {job.key for job in page.jobs if job.age == self.age}
        self._places += sum(job.age == self.age for job in new)
