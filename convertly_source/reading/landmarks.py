"""Ended jobs by which a later run recognizes the account, spread over its history.

Only pending jobs can be deleted, and a purge begins with the oldest. So if none of them is listed
any more, the list belongs to another account, or the whole history was deleted.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from convertly_source.errors import SettingsError
from convertly_source.reading.job import PositionedJob
from convertly_source.reading.listing import Listing
from convertly_source.reading.pages import Page

MAX_LANDMARKS = 8

Landmark = tuple[datetime, str]  # created_at, id


def add_landmark(landmarks: list[Landmark], jobs: Sequence[PositionedJob]) -> list[Landmark]:
    """Return the landmarks with the youngest of these jobs that has ended, alone at its time.

    Beyond `MAX_LANDMARKS`, the one whose neighbours are closest together is left out.
    """
    for before, job, after in reversed(list(zip(jobs, jobs[1:], jobs[2:], strict=False))):
        is_alone = before.created_at < job.created_at < after.created_at
        if job.job.is_usable and job.job.is_final and is_alone:
            found = [*(one for one in landmarks if one[0] < job.created_at), _landmark(job)]
            if len(found) > MAX_LANDMARKS:
                inner = range(1, len(found) - 1)
                del found[min(inner, key=lambda at: found[at + 1][0] - found[at - 1][0])]
            return found
    return landmarks


def check_account(listing: Listing, landmarks: Sequence[Landmark], page: Page) -> None:
    """Raise `SettingsError` if no landmark is listed; `page` is one that was read already.

    It costs no request if the youngest one is on that page or the newest one.
    """
    pages = [listing.newest_page, page]
    for created_at, key in reversed(landmarks):
        shown = [one for one in pages if one.begins_before(created_at) and one.overlaps(created_at)]
        if not shown:
            shown = [listing.search(created_at)]
            pages += shown
        if any((created_at, key) == _landmark(job) for one in shown for job in one.jobs):
            return
    if landmarks:
        raise _other_account()


def once_known(
    batches: Iterator[list[PositionedJob]], known: set[str]
) -> Iterator[list[PositionedJob]]:
    """Yield all batches of a list without an order, once one of them has a known job.

    Raise `SettingsError` as `check_account` if none has.
    """
    waiting = list[list[PositionedJob]]()
    for jobs in batches:
        waiting.append(jobs)
        if not known.isdisjoint(job.key for job in jobs):
            break
    else:
        raise _other_account()
    yield from waiting
    yield from batches


def _other_account() -> SettingsError:
    return SettingsError(
        "The API key belongs to another account than the one that was loaded, or all of its "
        "jobs were deleted.",
        "Choose another dataset, or set trust_account if it is the same account.",
        setting="trust_account",
    )


def _landmark(job: PositionedJob) -> Landmark:
    return job.created_at, job.key
