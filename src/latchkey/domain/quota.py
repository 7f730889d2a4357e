"""Quotas per user: the rate limit of requests and the limit of stored bytes."""

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
"""Each stored row counts as this many bytes in addition to its text."""


class Quota(Struct, frozen=True):
    """The limits of each user. Up to one minute's requests may come in a burst."""

    requests_per_minute: int = 6_000
    stored_bytes: int = 1 << 30

    @property
    def kept_for_owner(self) -> int:
        """How many of a minute's requests context tokens cannot take: a leaked token must not keep its owner out."""
        return self.requests_per_minute // 4

    @property
    def block(self) -> int:
        """How many requests a process reserves at once: those of one second."""
        return max(1, self.requests_per_minute // 60)

    @property
    def interval(self) -> timedelta:
        """The time between two requests at the rate limit."""
        return _MINUTE / self.requests_per_minute


class QuotaUsage(Struct, frozen=True):
    """What a user has used.

    `theoretical_arrival_time` is that of the generic cell rate algorithm (ITU-T I.371). `stored_bytes` was measured at
    `counted_at`, and writes have been added since; deletions count after the next measurement.
    """

    theoretical_arrival_time: Instant
    stored_bytes: int
    counted_at: Instant

    def take(self, quota: Quota, wanted: int, now: datetime, kept: int = 0) -> tuple[Self, int]:
        """Take this many requests, or as many as are left beyond `kept`; return the new usage and the number taken."""
        # A time further ahead than a minute was written by a process whose clock is ahead.
        start = min(max(self.theoretical_arrival_time, now), now + _MINUTE)
        taken = max(0, min(wanted, (now + _MINUTE - start) // quota.interval - kept))
        return replace(self, theoretical_arrival_time=start + taken * quota.interval), taken

    def wait_s(self, quota: Quota, now: datetime, kept: int = 0) -> int:
        """Return in how many seconds the next request beyond `kept` can be taken."""
        next_at = self.theoretical_arrival_time + (kept + 1) * quota.interval - _MINUTE
        return max(1, min(60, ceil((next_at - now).total_seconds())))

    def is_recount_due(self, quota: Quota, now: datetime) -> bool:
        """Whether the stored bytes must be measured again: after 30 s if the quota is reached, else after a day."""
        is_full = self.stored_bytes >= quota.stored_bytes
        return self.counted_at > now or now - self.counted_at >= (_RECOUNT_FULL if is_full else _RECOUNT)

    def recount_in_s(self, now: datetime) -> int:
        """Return in how many seconds the stored bytes of a full quota can be measured again."""
        return max(1, ceil((self.counted_at + _RECOUNT_FULL - now).total_seconds()))
