"""The account as a sequence by age: found by age, read oldest first, exact while it moves."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from math import inf

from convertly_source.client import JobsClient
from convertly_source.pages import BEGINNING, END, SURE_OVERLAP, DisorderError, Page, Pages
from convertly_source.results import Row, fingerprint

PATIENCE = 30  # times that a place is looked for again without finding a new job there


class Front:
    """How far a read has come: all jobs older than `age` are handed over, and some of that age.

    Jobs of one age stand in any order, another one in each answer. They are complete when as many
    were met as there are places for them, in a list that kept its length meanwhile.
    """

    def __init__(self, since: datetime, until: datetime) -> None:
        self.age = since
        self.count = 0  # jobs handed over
        self.is_short = False  # the last page ended the jobs of `age`, and some were not met
        self.is_crowded = False  # the last page had no younger job than those of `age`
        self._until = until
        self._handed: set[object] = set()
        self._ageless: set[object] = set()
        self._changes = -1
        self.look_again()

    def look_again(self) -> None:
        """Forget where the last page was: the next one does not follow it."""
        self._places, self._edge = 0, inf

    def take(self, page: Page, changes: int) -> list[Row]:
        """Move on over a page that joins; return its jobs that were not handed over before.

        `changes` counts how often the list has changed its length so far.
        """
        if changes != self._changes:
            self._met: set[object] = set()
            self._changes = changes
            self.look_again()
        batch: list[Row] = []
        younger: dict[object, tuple[datetime, Row]] = {}
        alike = Counter[str]()  # jobs without an id, by content
        listed = zip(reversed(page.ages), reversed(page.rows), strict=True)
        for place, (age, row) in enumerate(listed, page.rank):
            key: object = row.id
            if not key:
                content = fingerprint(row.job)
                alike[content] += 1
                key = content, alike[content]
            if age is None:
                batch += [row] * (key not in self._ageless)
                self._ageless.add(key)
            elif age > self.age:
                younger.setdefault(key, (age, row))
            elif age == self.age:
                batch += [row] * (key not in self._handed)
                self._handed.add(key)
                self._met.add(key)
                self._places += place < self._edge
            elif place < self._edge < inf:
                raise DisorderError
        self._edge = page.rank
        self.is_crowded = not younger
        self.is_short = len(self._met) < self._places and (bool(younger) or page.rank == 0)
        if younger and not self.is_short:
            jobs = list(younger.values())
            self.age = jobs[0][0]
            batch += [row for age, row in reversed(jobs) if age <= self._until]
            self._handed = {key for key, (age, _) in younger.items() if age == self.age}
            self._met, self._places = set(self._handed), page.ages.count(self.age)
        self.count += len(batch)
        return batch


class Listing:
    """The jobs of an account, or those in one status, from the moment of its making on."""

    def __init__(
        self, client: JobsClient, page_size: int, max_connections: int, status: str | None = None
    ) -> None:
        self.pages = Pages(client, page_size, max_connections, status)
        self.newest = self.pages.first.youngest
        self.expected = 0  # jobs to come, once a read has begun
        self._start: Page | None = self.pages.first  # good for one look, if there are ages
        self._begins = {0: self.pages.first.oldest or END}  # where pages began, by rank

    def search(self, age: datetime) -> list[Page]:
        """Look for the page from which on all jobs of that age and younger stand.

        It is the last of the returned pages; the others were looked at on the way. A gallop and
        a bisection: about twice the logarithm of the number of pages, less what is known already.
        """
        found = [self._start] if self._start and self.pages.is_ordered else []
        self._start = None
        for attempt in range(PATIENCE):
            if found and found[-1].begins_before(age):
                return found
            # The list may have grown since its length was seen: ask for less than a page.
            found += self._look_for(age, slack=self.pages.size // 2 if attempt else 0)
        raise self.pages.contradiction(self.pages.end)

    def _look_for(self, age: datetime, slack: int) -> list[Page]:
        size, total, looked_at = self.pages.size, self.pages.total, dict[int, Page]()

        def begins_before(index: int) -> bool:
            rank = index * size
            if rank not in self._begins:
                looked_at[rank] = self.pages.at(rank)
                self._begins[rank] = looked_at[rank].oldest or END
            return self._begins[rank] < age

        last = max(0, (total - 1) // size)
        low = high = 0 if age > BEGINNING else last
        while high < last and not begins_before(high):
            low, high = high + 1, 2 * high or 1
        index = low + bisect_left(range(low, min(high, last)), x=True, key=begins_before)
        rank = index * size if index < last else max(0, total - size + slack)
        found = looked_at.pop(rank, None) or self.pages.at(rank)
        if not found.begins_before(age):
            self._begins.clear()
        return [*looked_at.values(), found]

    def read(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """Hand over each job from `since` to `until`, both included, once, oldest first.

        After each batch all older jobs have been handed over: who stops there can go on there.
        Jobs of an unknown age come where they stand.

        Raises `DisorderError` when the ages are in no order, and `ResponseError` when the list
        does not hold what it says.
        """
        page = self.search(since)[-1]
        is_full = page.oldest is None or page.oldest >= since
        self.expected = page.rank + sum(age is None or age >= since for age in page.ages)
        front, patience = Front(since, until), PATIENCE
        while True:
            if batch := front.take(page, self.pages.changes):
                patience = PATIENCE
                yield batch
            if not front.is_short and (page.rank == 0 or front.age > until):
                break
            following = None if front.is_short else self.pages.after(page)
            if following is None or not self._joins(following, page, front):
                patience -= 1
                if not patience:
                    raise self.pages.contradiction(front.count)
                front.look_again()
                following = self.search(front.age)[-1]
            if following.total != page.total:
                self.pages.overlap_more()
            page = following
        if is_full and front.age <= until and front.count < page.total and self._is_at_rest():
            raise self.pages.contradiction(front.count)

    def read_all(self) -> Iterator[list[Row]]:
        """Hand over every job, in order of age where there is one. A job may come twice."""
        try:
            yield from self.read(BEGINNING, END)
        except DisorderError:
            self.pages.without_order()
            yield from self.read(BEGINNING, END)

    def _joins(self, following: Page, page: Page, front: Front) -> bool:
        """Whether no job can be missing between two pages: the younger one has an older job.

        Where one age fills pages there is none, and in a very long list it would cost too much.
        """
        may_seem = front.is_crowded or self.pages.overlap < SURE_OVERLAP
        is_sure = following.begins_before(front.age)
        return is_sure or (may_seem and following.follows(page, front.age))

    def _is_at_rest(self) -> bool:
        """Whether nothing was created or vanished since the start."""
        first, total = self.pages.first, self.pages.total
        now = self.pages.at(0)
        is_same = not self.pages.is_ordered or now.rows[-1:] == first.rows[-1:]
        return is_same and now.total == total == first.total
