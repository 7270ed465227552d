"""The account as a sequence by age: found by age, read oldest first, exact while it moves."""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime

from convertly_source.api.client import JobsClient
from convertly_source.reading.front import Front
from convertly_source.reading.job import ListedJob
from convertly_source.reading.pages import BEGINNING, END, Page, Pages, contradiction

PATIENCE = 12  # fruitless requests for each fruitful one, among jobs of one age, before giving up


class Listing(Pages):
    """The jobs of an account, from the moment of its making on."""

    def __init__(self, client: JobsClient, page_size: int, max_connections: int) -> None:
        super().__init__(client, page_size, max_connections)
        self.expected = 0  # jobs to come, once a read has begun
        self.reached = BEGINNING  # the last read has handed over all jobs that are older
        self._begins = {0: self.first.oldest}  # where pages began, by rank
        self._start: Page | None = self.first  # good for one look

    def search(self, age: datetime, rank: int = 0) -> Page:
        """Find a page on which, or after which, all jobs of that age and younger stand.

        A gallop from `rank` towards the oldest job, and a bisection: about twice the logarithm of
        the number of pages, less what is known already.
        """
        page, self._start = self._start, None
        if rank > 0:
            page = self.at(rank)
            self._begins[rank] = page.oldest
        for attempt in range(PATIENCE):
            if page and page.begins_before(age):
                return page
            if attempt:  # the list has moved
                self._begins.clear()
            looked_at = dict[int, Page]()
            found = self._rank_of(age, max(0, rank), looked_at)
            page = looked_at.get(found) or self.at(found)
        raise contradiction(self.total, self.reach)

    def read(
        self, since: datetime, until: datetime, page: Page | None = None
    ) -> Iterator[list[ListedJob]]:
        """Hand over each job from `since` to `until` once, oldest first, and some younger ones.

        After each batch all older jobs have been handed over: who stops there can go on there.
        Jobs of an unknown age come where they stand. `page` is what a search for `since` found.

        Raises `DisorderError` when the ages are in no order, and `ResponseError` when the list
        does not hold what it says.
        """
        page = page or self.search(since)
        is_full = all(job.age >= since for job in page.jobs[:1])
        page = page.from_age(since)
        self.expected = page.rank + sum(job.age >= since for job in page.jobs)
        front = Front(since)
        following = self.after(page, at_once=until >= self.first.youngest)
        fruitful, fruitless = 1, 0
        while True:
            age, fruitless = front.age, fruitless + 1
            if rows := front.take(page):
                fruitful, fruitless = (fruitful + 1 if front.age == age else 1), 0
                yield rows
            self.reached = END if page.rank <= 0 else front.age
            if not front.is_short and (page.rank <= 0 or front.age > until):
                break
            joining = None if front.is_short else next(following, None)
            if joining is None or not front.joins(joining, is_long=self.overlap == 1):
                front.look_again()
                rank = page.rank + page.places(front.age) + 1 - self.size
                joining = self.search(front.age, rank)
                following = self.after(joining)
            page = joining
            if fruitless > PATIENCE * fruitful:
                raise contradiction(self.total, front.count)
        if is_full and page.rank <= 0 and front.count < page.total and self._is_at_rest():
            raise contradiction(self.total, front.count)

    def _rank_of(self, age: datetime, rank: int, looked_at: dict[int, Page]) -> int:
        last = max(0, self.total - self.size + self.overlap - 1)  # it may have grown a little
        pages = max(0, last - rank + self.size - 1) // self.size

        def rank_of(index: int) -> int:
            return min(rank + self.size * index, last)

        def begins_before(index: int) -> bool:
            return self._begins_before(age, looked_at, rank_of(index))

        low = high = 0 if age > BEGINNING else pages
        while high < pages and not begins_before(high):
            low, high = high + 1, 2 * high or 1
        high = min(high, pages)
        return rank_of(bisect_left(range(high), x=True, lo=low, key=begins_before))

    def _begins_before(self, age: datetime, looked_at: dict[int, Page], rank: int) -> bool:
        if rank not in self._begins:
            looked_at[rank] = self.at(rank)
            self._begins[rank] = looked_at[rank].oldest
        return self._begins[rank] < age

    def _is_at_rest(self) -> bool:
        """Whether nothing was created or vanished since the start."""
        now = self.at(0)
        return (now.total, now.youngest) == (self.first.total, self.first.youngest)
