"""How much a person may ask for and keep, and what they have used of it."""

from datetime import datetime, timedelta
from math import ceil
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.values import Instant

_MINUTE = timedelta(minutes=1)
_RECOUNT_FULL = timedelta(seconds=30)
_RECOUNT = timedelta(days=1)

ROW_BYTES = 100
"""What each stored row counts for beside its text."""


class Quota(Struct, frozen=True):
    """What everybody may use. Requests not made for a while are saved up, for a minute at most."""

    requests_per_minute: int = 6_000
    stored_bytes: int = 1 << 30

    @property
    def block(self) -> int:
        """So many requests are taken at once: those of a second."""
        return max(1, self.requests_per_minute // 60)

    @property
    def interval(self) -> timedelta:
        """One request may be made in that time."""
        return _MINUTE / self.requests_per_minute


class QuotaUsage(Struct, frozen=True):
    """What a person has used.

    `theoretical_arrival_time` is when the requests taken so far will have been worth it, at one in each interval: the
    theoretical arrival time of the generic cell rate algorithm (ITU-T I.371). `stored_bytes` was counted at
    `counted_at` and has been added to since; deleting is noticed when it is counted again.
    """

    theoretical_arrival_time: Instant
    stored_bytes: int
    counted_at: Instant

    def take(self, quota: Quota, wanted: int, now: datetime) -> tuple[Self, int]:
        """With so many requests taken, or as many as there are: the second is how many."""
        # What is further ahead than a minute was written by a clock that was ahead itself.
        start = min(max(self.theoretical_arrival_time, now), now + _MINUTE)
        taken = max(0, min(wanted, (now + _MINUTE - start) // quota.interval))
        return replace(self, theoretical_arrival_time=start + taken * quota.interval), taken

    def wait_s(self, quota: Quota, now: datetime) -> int:
        """In how many seconds there will be another request to take."""
        return max(1, min(60, ceil((self.theoretical_arrival_time + quota.interval - now - _MINUTE).total_seconds())))

    def is_recount_due(self, quota: Quota, now: datetime) -> bool:
        """Whether it is time to count again: soon where there is no room, otherwise now and then."""
        is_full = self.stored_bytes >= quota.stored_bytes
        return self.counted_at > now or now - self.counted_at >= (_RECOUNT_FULL if is_full else _RECOUNT)

    def recount_in_s(self, now: datetime) -> int:
        """In how many seconds it may be counted again."""
        return max(1, ceil((self.counted_at + _RECOUNT_FULL - now).total_seconds()))
