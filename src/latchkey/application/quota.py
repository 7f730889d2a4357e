"""Quota per user: the rate limit of requests and the limit of stored bytes.

The database has one row of usage per user. A process reserves a block of requests there, and then counts in memory.
Written bytes are counted in memory too, and reported to the database from time to time.
"""

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
    """The result of a reservation: the number of requests taken, and the state of the stored bytes.

    More requests can be taken in `wait_s` seconds. `recount_in_s` is when the stored bytes may be measured again.
    """

    requests: int
    wait_s: int
    stored_bytes: int
    is_recount_due: bool
    recount_in_s: int


async def reserve(uow: UnitOfWork, quota: Quota, requests: int, written: int) -> Reservation:
    """Reserve requests, at most this many, and add the bytes that this process has written.

    A context token leaves some requests to the owner.
    """
    now, kept = uow.now, 0 if uow.scope.is_owner else quota.kept_for_owner
    usage = await uow.quota_usage.get() or await uow.quota_usage.add(QuotaUsage(now, 0, _NEVER))
    usage, taken = usage.take(quota, requests, now, kept)
    usage = replace(usage, stored_bytes=usage.stored_bytes + written)
    await uow.quota_usage.update(usage)
    return Reservation(
        requests=taken,
        wait_s=usage.wait_s(quota, now, kept),
        stored_bytes=usage.stored_bytes,
        is_recount_due=usage.is_recount_due(quota, now),
        recount_in_s=usage.recount_in_s(now),
    )


async def record_stored_bytes(uow: UnitOfWork, stored_bytes: int) -> int:
    """Store a new measurement, and return in how many seconds the stored bytes may be measured again."""
    usage = await uow.quota_usage.get() or await uow.quota_usage.add(QuotaUsage(uow.now, 0, _NEVER))
    measured = replace(usage, stored_bytes=stored_bytes, counted_at=uow.now)
    await uow.quota_usage.update(measured)
    return measured.recount_in_s(uow.now)


_MAX_BUCKETS = 10_000
"""Size of the LRU cache of buckets. An evicted user starts with a new block of requests."""

_MAX_UNREPORTED_BYTES = 1 << 20
"""A process reports written bytes after this many, or after a hundredth of the storage quota if that is less."""

_REFUSAL_DELAY_S = (0.3, 0.9)
"""A refusal is delayed by a random time, so that a client that retries at once does not occupy the processor."""


ESSENTIAL_PER_MINUTE = 60
"""How many requests that end harm a process admits of a user whose rate limit is reached."""


class _Requests:
    """Reserved requests. No more can be reserved before `empty_until`."""

    def __init__(self) -> None:
        self.left = 0
        self.empty_until = 0.0


class _Bucket:
    """The part of one verified user's quota that this process has reserved. Times are those of `monotonic`."""

    def __init__(self) -> None:
        self._of_owner = _Requests()
        self._of_tokens = _Requests()
        self._essential_until = 0.0
        self.written = 0
        self.stored: int | None = None
        self.full_until = 0.0

    def requests(self, credential: Credential) -> _Requests:
        """Return the requests that were reserved for the owner, or for all context tokens of the owner."""
        return self._of_owner if isinstance(credential, Owner) else self._of_tokens

    def take_essential(self) -> bool:
        """Take one of the requests that end harm, and return whether one was left (GCRA, as for the rate limit)."""
        now = monotonic()
        arrival = max(self._essential_until, now) + 60 / ESSENTIAL_PER_MINUTE
        if arrival > now + 60:
            return False
        self._essential_until = arrival
        return True


class _SingleFlight:
    """Runs the reservations of one credential one after the other.

    Each credential has its own lock, so an invalid token never delays the real user.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Wait for the running reservation. If it fails, fail too: with a retry the waiting times would add up."""
        failures = self._failures
        async with self._lock:
            if self._failures != failures:
                raise Unavailable("The database is unavailable: try again shortly.")
            try:
                yield
            except Unavailable:
                self._failures += 1
                raise


class QuotaLimiter:
    """Enforces the rate limit and the storage quota of each user. One request in a block uses the database."""

    def __init__(self, units: UnitsOfWork, quota: Quota) -> None:
        self._units = units
        self._quota = quota
        self._max_unreported = min(_MAX_UNREPORTED_BYTES, quota.stored_bytes // 100)
        self._buckets: OrderedDict[UserId, _Bucket] = OrderedDict()
        self._flights: WeakValueDictionary[Credential, _SingleFlight] = WeakValueDictionary()

    async def acquire(self, credential: Credential, *, essential: bool = False) -> None:
        """Admit one request. Raises `Exhausted` if the rate limit is reached, and what opening a unit of work raises.

        A user's own request counts at once. A context token is not verified yet: `consume` counts its request later.
        An `essential` request of a user, which ends harm, has an allowance of its own beyond the rate limit.
        """
        while not self._has_requests(credential):
            if await self._reserve_requests(credential):
                continue
            bucket = self._bucket(credential.user_id)
            if essential and isinstance(credential, Owner) and bucket.take_essential():
                return
            await asyncio.sleep(uniform(*_REFUSAL_DELAY_S))  # noqa: S311 - not a secret
            raise Exhausted(
                f"Rate limit of {self._quota.requests_per_minute} requests per minute reached: try again later.",
                retry_after=max(1, round(bucket.requests(credential).empty_until - monotonic())),
            )
        if isinstance(credential, Owner):
            self._bucket(credential.user_id).requests(credential).left -= 1

    def consume(self, credential: TokenSecret) -> None:
        """Count a request whose context token has been verified."""
        self._bucket(credential.user_id).requests(credential).left -= 1

    def add_usage(self, user_id: UserId, written: int) -> None:
        """Count bytes that were written for the user."""
        if written:
            self._bucket(user_id).written += written

    async def check_storage(self, credential: Credential) -> None:
        """Raises `Exhausted` if the storage quota is reached, and what opening a unit of work raises."""
        if self._has_storage(credential, self._max_unreported):
            return
        async with self._flight(credential).run():
            bucket = self._buckets.get(credential.user_id)
            is_known_full = isinstance(credential, Owner) and bucket and bucket.full_until > monotonic()
            if not self._has_storage(credential, self._max_unreported) and not is_known_full:
                await self._report(credential)
        if not self._has_storage(credential):
            raise self._storage_exhausted(credential.user_id)

    def check_known_storage(self, user_id: UserId) -> None:
        """Raises `Exhausted` if this process knows that the storage quota is reached. Asks no database."""
        bucket = self._buckets.get(user_id)
        if bucket and bucket.stored is not None and bucket.stored + bucket.written >= self._quota.stored_bytes:
            raise self._storage_exhausted(user_id)

    def _storage_exhausted(self, user_id: UserId) -> Exhausted:
        return Exhausted(
            f"Storage quota of {self._quota.stored_bytes} bytes reached: delete something and try again.",
            retry_after=max(1, round(self._bucket(user_id).full_until - monotonic())),
        )

    def _has_requests(self, credential: Credential) -> bool:
        bucket = self._buckets.get(credential.user_id)
        return bucket is not None and bucket.requests(credential).left > 0

    def _has_storage(self, credential: Credential, max_unreported: int | None = None) -> bool:
        """Whether storage is known to be left, with at most this many bytes not yet reported to the database."""
        bucket = self._buckets.get(credential.user_id)
        if bucket is None or bucket.stored is None:
            return False
        has_reported = max_unreported is None or bucket.written <= max_unreported
        return has_reported and bucket.stored + bucket.written < self._quota.stored_bytes

    async def _reserve_requests(self, credential: Credential) -> bool:
        """Reserve a block of requests from the database, which verifies the credential; return whether some are left.

        A context token's requests are counted after they were admitted, so their number may be negative. The
        reservation covers that difference, too.
        """
        async with self._flight(credential).run():
            if not self._has_requests(credential):
                bucket = self._buckets.get(credential.user_id)
                requests = bucket.requests(credential) if bucket else _Requests()
                if not (isinstance(credential, Owner) and requests.empty_until > monotonic()):
                    await self._reserve(credential, self._quota.block - requests.left)
        return self._has_requests(credential)

    async def _report(self, credential: Credential) -> None:
        """Report the written bytes to the database, and measure the stored bytes again if that is due."""
        reservation = await self._reserve(credential, 0)
        bucket, recount_in_s = self._bucket(credential.user_id), reservation.recount_in_s
        if reservation.is_recount_due:
            async with self._units.open(credential, "read") as uow:
                stored_bytes = await uow.quota_usage.measure_storage()
            async with self._units.open(credential, "write") as uow:
                recount_in_s = await record_stored_bytes(uow, stored_bytes)
                await uow.commit()
            bucket.stored = stored_bytes
        if not self._has_storage(credential):
            bucket.full_until = monotonic() + recount_in_s

    async def _reserve(self, credential: Credential, requests: int) -> Reservation:
        bucket = self._buckets.get(credential.user_id)
        written = bucket.written if bucket else 0
        if bucket:
            bucket.written = 0
        try:
            async with self._units.open(credential, "write") as uow:
                reservation = await reserve(uow, self._quota, requests, written)
                await uow.commit()
        except BaseException:
            if bucket:
                bucket.written += written
            raise
        bucket = self._bucket(credential.user_id)
        bucket.stored = reservation.stored_bytes
        reserved = bucket.requests(credential)
        reserved.left += reservation.requests
        if reservation.requests < requests:
            reserved.empty_until = monotonic() + reservation.wait_s
        return reservation

    def _flight(self, credential: Credential) -> _SingleFlight:
        flight = self._flights.get(credential)
        if flight is None:
            flight = self._flights[credential] = _SingleFlight()
        return flight

    def _bucket(self, user_id: UserId) -> _Bucket:
        """Return the bucket of a verified user; make one if there is none."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = _Bucket()
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(user_id)
        return bucket
