"""The account as a sequence by `created_at`: searched, and read oldest first, while it moves."""

from collections.abc import Generator, Iterator
from datetime import datetime

from convertly_source.reading.job import BEGINNING, END, LAG, TICK, PositionedJob
from convertly_source.reading.pages import Page, Pages

PAGES_WITHOUT_GAP = 32  # until one more is fetched ahead
MAX_ROUNDS = 20  # through the jobs of one `created_at`, to see all of them


class Listing(Pages):
    """The jobs of an account, oldest first. One rule joins two pages, whatever moved between them.

    Once every job older than the watermark was handed over, a page with a job older than it holds
    every job from the watermark to its youngest one: hand those over, and the `created_at` of the
    youngest is the new watermark. The end of the list counts as an older job. Without an older
    job there is a gap: search for the watermark, and overlap by more from then on.

    Jobs of one `created_at` that fill a page have no older job beside them: `Group` tells when
    they are complete.
    """

    watermark = BEGINNING

    def read(self, since: datetime, until: datetime, page: Page) -> Iterator[list[PositionedJob]]:
        """Yield each job from `since` to `until` once, oldest first, and some younger ones.

        `page` is where the jobs of `since` begin. After each batch all jobs older than `watermark`
        have been handed over. Raises `DisorderError` when a page is not sorted, `UnavailableError`
        when the list moves faster than it can be read.
        """
        self.watermark, handed = max(since, BEGINNING + TICK), set[str]()
        ahead = self.after(page)
        while True:
            mark = self.watermark
            new = [job for job in page.jobs if job.created_at >= mark and job.key not in handed]
            self.watermark = END if page.is_newest else page.youngest
            handed = {job.key for job in page.jobs if job.created_at == self.watermark}
            yield new
            if page.is_newest or self.watermark > until:
                return
            last, page = page, self.newest_page
            if not page.begins_before(self.watermark):
                page = next(ahead)
            if page.overlaps(self.watermark):
                self._joined += 1
                self._depth = min(
                    self._depth + (self._joined % PAGES_WITHOUT_GAP == 0), self._max_depth
                )
                self._overlap = max(2, self._overlap - 1)
                continue
            ahead.close()
            self._joined, self._depth = 0, 1
            wider = max(2 * self._overlap, self.size // 10 + 1)
            self._overlap = min(wider, 3 * self.size // 4)
            page = self.find(self.watermark, last.count_before(self.watermark) - self._overlap)
            if not page.overlaps(self.watermark):
                page = yield from self._group(self.watermark, handed, page)
                self.watermark, handed = self.watermark + TICK, set()
            ahead = self.after(page)

    def find(self, created_at: datetime, position: int) -> Page:
        """Return a page that overlaps that time, unless jobs of one `created_at` fill it."""
        page = self.search(created_at, position)
        if page.overlaps(created_at):
            return page
        return self.at(page.count_before(created_at) - 1)  # it began too early

    def everything(self) -> Iterator[list[PositionedJob]]:
        """Yield all jobs of a list without an order, once, as if they were of one `created_at`."""
        self.is_ordered, self.is_newest_first, self._only_times = False, True, None
        yield from self._group(BEGINNING, set(), self.search(BEGINNING))
        self.watermark = END

    def _group(
        self, created_at: datetime, handed: set[str], page: Page
    ) -> Generator[list[PositionedJob], None, Page]:
        """Yield the jobs of one `created_at` until they are complete; return their last page.

        Their order may depend on the offset and limit of the request. So each round begins at
        another offset; once all offsets have been requested, the next rounds use a smaller limit.
        """
        end = None
        if self.is_ordered and self.is_static and created_at < self.now - LAG:
            after = created_at + TICK
            end = self.search(after, page.end).count_before(after)
            page = self.at(page.position)  # jobs that it showed before may have vanished
        group = Group(created_at, handed, end)
        rounds = 2 * MAX_ROUNDS if end is None else MAX_ROUNDS  # all must be seen twice, or once
        ways = self._ways(group)
        limit, _, shift = next(ways)
        while True:
            if not page.begins_before(created_at):
                page = self.search(created_at, page.position)
            group.begin(page.count_before(created_at), self.total)
            while True:
                yield group.take(page)
                if group.pages > rounds * group.useful_pages:
                    raise self.failure()
                if page.youngest > created_at or page.is_newest:
                    break
                following = max(page.position + (shift == 0), page.end - 1 - shift)
                page, shift = self.at(following, limit), 0
            if group.is_complete(page, self.total, is_static=self.is_static):
                return page
            limit, first_shift, shift = next(ways)
            page = self.at(group.start - 1 - first_shift, limit)

    def _ways(self, group: "Group") -> Iterator[tuple[int, int, int]]:
        """Yield ways through a group: a limit, and how much earlier its first two pages begin.

        The first way takes the fewest pages. The larger the shift of the second page, the more of a
        small group is shown twice. Newest first, shifts that lead beyond the newest page are alike.
        When the first page is shifted, it shows less of the group, so that is tried last.
        """
        yield self.size, 0, 0
        is_last = False
        while True:
            for limit in range(self.size, 1, -1):
                for shift in range(limit - 2, -1, -1):
                    end = group.start + 2 * (limit - 1) - shift
                    if is_last:
                        yield limit, shift, 0
                    elif not self.is_newest_first or end <= self.total or shift == limit - 2:
                        yield limit, 0, shift
            is_last = not is_last


class Group:
    """The jobs of one `created_at`, whose order may differ in each answer.

    The group is complete once as many different jobs were seen as it has positions, and none of
    them has vanished meanwhile. That is so if all of them were seen again; or, in a list as long as
    before, if the group ends where it did before the first was seen, and is too old to grow.
    Positions are counted from the oldest job, so creations don't change them. When older jobs come
    or go, counting starts over.
    """

    def __init__(self, created_at: datetime, handed: set[str], end: int | None) -> None:
        self.start = -1  # the position of the first one
        self._end = end  # the position after the last one, when none was seen; None: it may grow
        self._created_at, self._handed = created_at, set(handed)
        self._seen = set[str]()
        self._whole: set[str] | None = None  # all of them, until they are seen again
        self.pages = 0
        self.useful_pages = 2  # of the first round; a group fills one, at least
        self._rounds = 0

    def begin(self, start: int, total: int) -> None:
        """Begin a round."""
        if start != self.start:
            self._seen, self._whole, self._rounds = set(), None, 0
        self._rounds += 1
        self.start, self._total = start, total

    def take(self, page: Page) -> list[PositionedJob]:
        """Return the jobs of the group on a page that were not handed over yet."""
        found = {job.key: job for job in page.jobs if job.created_at == self._created_at}
        new = [job for key, job in found.items() if key not in self._handed]
        self.pages += 1
        self.useful_pages += bool(new) and self._rounds == 1
        self._seen |= found.keys()
        self._handed |= found.keys()
        return new

    def is_complete(self, page: Page, total: int, *, is_static: bool) -> bool:
        """Whether all were seen, at the end of a round."""
        after = self._created_at + TICK
        end = page.count_before(after)
        if end != self._end:  # older jobs may have been purged
            self.start -= max(0, self._total - total)
        times = {job.created_at for job in page.jobs}
        if self._created_at not in times and not page.begins_before(after):
            return False
        if self._whole is not None and self._whole <= self._seen:
            return True
        positions = end - self.start
        if len(self._seen) < positions:
            return False
        is_whole = len(self._seen) == positions
        is_unchanged = is_static and end == self._end
        if is_whole:
            self._whole = self._seen
        self._seen = set()
        if self._end is not None:
            self._end = end
        return is_whole and is_unchanged
