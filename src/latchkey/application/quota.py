"""What a person has used, as the database has it, for every process that serves them."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import uniform
from time import monotonic
from weakref import WeakValueDictionary

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.credentials import Credential, Owner, TokenSecret, UserId
from latchkey.domain.errors import Exhausted, Unavailable
from latchkey.domain.ports import UnitOfWork, UnitsOfWork
from latchkey.domain.quota import Quota, QuotaUsage

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Reservation(Struct, frozen=True):
    """So many requests were taken, and more may be in `wait_s` seconds; what is stored may be due to be counted."""

    requests: int
    wait_s: int
    stored_bytes: int
    is_recount_due: bool
    recount_in_s: int


async def reserve(uow: UnitOfWork, quota: Quota, requests: int, written: int) -> Reservation:
    """Take requests, as many as there are of those wanted, and report the bytes that were written meanwhile."""
    now = uow.now
    usage = await uow.quota_usage.get() or await uow.quota_usage.add(QuotaUsage(now, 0, _NEVER))
    usage, taken = usage.take(quota, requests, now)
    usage = replace(usage, stored_bytes=usage.stored_bytes + written)
    await uow.quota_usage.update(usage)
    return Reservation(
        requests=taken,
        wait_s=usage.wait_s(quota, now),
        stored_bytes=usage.stored_bytes,
        is_recount_due=usage.is_recount_due(quota, now),
        recount_in_s=usage.recount_in_s(now),
    )


async def record_stored_bytes(uow: UnitOfWork, stored_bytes: int) -> int:
    """In how many seconds it may be counted again.

    It was counted just now, in a unit of its own: nobody waits for that but whoever wants to store something.
    """
    usage = await uow.quota_usage.get() or await uow.quota_usage.add(QuotaUsage(uow.now, 0, _NEVER))
    counted = replace(usage, stored_bytes=stored_bytes, counted_at=uow.now)
    await uow.quota_usage.update(counted)
    return counted.recount_in_s(uow.now)


_ACCOUNTS = 10_000
"""Of so many people the account is kept; the others' begins anew, with another block."""

_UNREPORTED = 1 << 20
"""So many bytes, or a hundredth of what may be stored, are reported before more are written."""

_REFUSAL_S = (0.3, 0.9)
"""A refusal takes so long: whoever asks again at once leaves the processor to others, and a crowd is dispersed."""


class _Bucket:
    """What this process has of one person's allowance. There is one for whoever was found to be that person."""

    def __init__(self) -> None:
        self.requests = 0
        self.written = 0
        self.stored: int | None = None
        self.empty_until = 0.0
        self.full_until = 0.0


class _SingleFlight:
    """Whoever draws under one credential, one at a time. Those of made-up tokens are in nobody's way."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Whoever has waited for another in vain does not try as well: the last would wait for all of them."""
        failures = self._failures
        async with self._lock:
            if self._failures != failures:
                raise Unavailable("The database does not answer: try again.")
            try:
                yield
            except Unavailable:
                self._failures += 1
                raise


class QuotaLimiter:
    """Keeps account of requests and stored bytes. Of a hundred requests, one goes to the database for it."""

    def __init__(self, units: UnitsOfWork, quota: Quota) -> None:
        self._units = units
        self._quota = quota
        self._unreported = min(_UNREPORTED, quota.stored_bytes // 100)
        self._buckets: OrderedDict[UserId, _Bucket] = OrderedDict()
        self._flights: WeakValueDictionary[Credential, _SingleFlight] = WeakValueDictionary()

    async def acquire(self, credential: Credential) -> None:
        """Let a request in. Raises `Exhausted` if there are none left, and what opening a unit of work does.

        A person's counts at once. Of a token's nobody knows yet whose it is: it counts once that is known.
        """
        while not self._has_requests(credential):
            await self._reserve_requests(credential)
        if isinstance(credential, Owner):
            self._bucket(credential.user_id).requests -= 1

    def consume(self, credential: TokenSecret) -> None:
        """Count a request whose token turned out to be one."""
        self._bucket(credential.user_id).requests -= 1

    def add_usage(self, user_id: UserId, written: int) -> None:
        """Note what was stored for a person."""
        if written:
            self._bucket(user_id).written += written

    async def check_storage(self, credential: Credential) -> None:
        """Raises `Exhausted` if the person stores as much as they may, and what opening a unit of work does."""
        if self._has_storage(credential, self._unreported):
            return
        async with self._flight(credential).run():
            bucket = self._buckets.get(credential.user_id)
            is_known_full = isinstance(credential, Owner) and bucket and bucket.full_until > monotonic()
            if not self._has_storage(credential, self._unreported) and not is_known_full:
                await self._report(credential)
        if not self._has_storage(credential):
            seconds = self._bucket(credential.user_id).full_until - monotonic()
            raise Exhausted(
                f"As much is stored as may be, {self._quota.stored_bytes} bytes: delete something first.",
                retry_after=max(1, round(seconds)),
            )

    def _has_requests(self, credential: Credential) -> bool:
        bucket = self._buckets.get(credential.user_id)
        return bucket is not None and bucket.requests > 0

    def _has_storage(self, credential: Credential, unreported: int | None = None) -> bool:
        """Whether it is known to be so, with no more than so much unreported."""
        bucket = self._buckets.get(credential.user_id)
        if bucket is None or bucket.stored is None:
            return False
        has_reported = unreported is None or bucket.written <= unreported
        return has_reported and bucket.stored + bucket.written < self._quota.stored_bytes

    async def _reserve_requests(self, credential: Credential) -> None:
        """Only the database can tell that a context token is one: until it has, its holder learns nothing.

        Requests under tokens are counted late, so there may be some to be made up for first.
        """
        async with self._flight(credential).run():
            if self._has_requests(credential):
                return
            bucket = self._buckets.get(credential.user_id)
            if not (isinstance(credential, Owner) and bucket and bucket.empty_until > monotonic()):
                await self._reserve(credential, self._quota.block - (bucket.requests if bucket else 0))
        if not self._has_requests(credential):
            await asyncio.sleep(uniform(*_REFUSAL_S))  # noqa: S311 - nobody gains by guessing it
            raise Exhausted(
                f"More than {self._quota.requests_per_minute} requests in a minute: make fewer.",
                retry_after=max(1, round(self._bucket(credential.user_id).empty_until - monotonic())),
            )

    async def _report(self, credential: Credential) -> None:
        """Tell what was written, and have it counted if it is time for that."""
        drawn = await self._reserve(credential, 0)
        bucket, recount_in_s = self._bucket(credential.user_id), drawn.recount_in_s
        if drawn.is_recount_due:
            async with self._units.open(credential, "read") as uow:
                size = await uow.quota_usage.measure_storage()
            async with self._units.open(credential, "write") as uow:
                recount_in_s = await record_stored_bytes(uow, size)
                await uow.commit()
            bucket.stored = size
        if not self._has_storage(credential):
            bucket.full_until = monotonic() + recount_in_s

    async def _reserve(self, credential: Credential, requests: int) -> Reservation:
        bucket = self._buckets.get(credential.user_id)
        written = bucket.written if bucket else 0
        if bucket:
            bucket.written = 0
        try:
            async with self._units.open(credential, "write") as uow:
                drawn = await reserve(uow, self._quota, requests, written)
                await uow.commit()
        except BaseException:
            if bucket:
                bucket.written += written
            raise
        bucket = self._bucket(credential.user_id)
        bucket.requests += drawn.requests
        bucket.stored = drawn.stored_bytes
        if drawn.requests < requests:
            bucket.empty_until = monotonic() + drawn.wait_s
        return drawn

    def _flight(self, credential: Credential) -> _SingleFlight:
        flight = self._flights.get(credential)
        if flight is None:
            flight = self._flights[credential] = _SingleFlight()
        return flight

    def _bucket(self, user_id: UserId) -> _Bucket:
        """Of somebody who was found to be that person, made if need be."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = _Bucket()
            if len(self._buckets) > _ACCOUNTS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(user_id)
        return bucket
