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
from latchkey.domain.quota import Allowance, Quota

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Draft(Struct, frozen=True):
    """So many requests were taken, and more may be in `wait_s` seconds; what is stored may be due to be counted."""

    requests: int
    wait_s: int
    stored_bytes: int
    wants_counting: bool
    count_s: int


async def draw(work: UnitOfWork, quota: Quota, requests: int, written: int) -> Draft:
    """Take requests, as many as there are of those wanted, and report the bytes that were written meanwhile."""
    now = work.now
    allowance = await work.allowances.get() or await work.allowances.add(Allowance(now, 0, _NEVER))
    allowance, taken = allowance.take(quota, requests, now)
    allowance = replace(allowance, stored_bytes=allowance.stored_bytes + written)
    await work.allowances.replace(allowance)
    return Draft(
        requests=taken,
        wait_s=allowance.wait_s(quota, now),
        stored_bytes=allowance.stored_bytes,
        wants_counting=allowance.wants_counting(quota, now),
        count_s=allowance.count_s(now),
    )


async def note_size(work: UnitOfWork, stored_bytes: int) -> int:
    """In how many seconds it may be counted again.

    It was counted just now, in a unit of its own: nobody waits for that but whoever wants to store something.
    """
    allowance = await work.allowances.get() or await work.allowances.add(Allowance(work.now, 0, _NEVER))
    counted = replace(allowance, stored_bytes=stored_bytes, counted_at=work.now)
    await work.allowances.replace(counted)
    return counted.count_s(work.now)


_ACCOUNTS = 10_000
"""Of so many people the account is kept; the others' begins anew, with another block."""

_UNREPORTED = 1 << 20
"""So many bytes, or a hundredth of what may be stored, are reported before more are written."""

_REFUSAL_S = (0.3, 0.9)
"""A refusal takes so long: whoever asks again at once leaves the processor to others, and a crowd is dispersed."""


class _Account:
    """What this process has of one person's allowance. There is one for whoever was found to be that person."""

    def __init__(self) -> None:
        self.requests = 0
        self.written = 0
        self.stored: int | None = None
        self.empty_until = 0.0
        self.full_until = 0.0


class _Queue:
    """Whoever draws under one credential, one at a time. Those of made-up tokens are in nobody's way."""

    def __init__(self) -> None:
        self._front = asyncio.Lock()
        self._failures = 0

    @asynccontextmanager
    async def front(self) -> AsyncIterator[None]:
        """Whoever has waited for another in vain does not try as well: the last would wait for all of them."""
        failures = self._failures
        async with self._front:
            if self._failures != failures:
                raise Unavailable("The database does not answer: try again.")
            try:
                yield
            except Unavailable:
                self._failures += 1
                raise


class Meter:
    """Keeps account of requests and stored bytes. Of a hundred requests, one goes to the database for it."""

    def __init__(self, units: UnitsOfWork, quota: Quota) -> None:
        self._units = units
        self._quota = quota
        self._unreported = min(_UNREPORTED, quota.stored_bytes // 100)
        self._accounts: OrderedDict[UserId, _Account] = OrderedDict()
        self._queues: WeakValueDictionary[Credential, _Queue] = WeakValueDictionary()

    async def admit(self, credential: Credential) -> None:
        """Let a request in. Raises `Exhausted` if there are none left, and what opening a unit of work does.

        A person's counts at once. Of a token's nobody knows yet whose it is: it counts once that is known.
        """
        while not self._has_requests(credential):
            await self._draw_requests(credential)
        if isinstance(credential, Owner):
            self._account(credential.user_id).requests -= 1

    def count(self, credential: TokenSecret) -> None:
        """Count a request whose token turned out to be one."""
        self._account(credential.user_id).requests -= 1

    def charge(self, user_id: UserId, written: int) -> None:
        """Note what was stored for a person."""
        if written:
            self._account(user_id).written += written

    async def check_room(self, credential: Credential) -> None:
        """Raises `Exhausted` if the person stores as much as they may, and what opening a unit of work does."""
        if self._has_room(credential, self._unreported):
            return
        async with self._queue(credential).front():
            account = self._accounts.get(credential.user_id)
            is_known_full = isinstance(credential, Owner) and account and account.full_until > monotonic()
            if not self._has_room(credential, self._unreported) and not is_known_full:
                await self._report(credential)
        if not self._has_room(credential):
            seconds = self._account(credential.user_id).full_until - monotonic()
            raise Exhausted(
                f"As much is stored as may be, {self._quota.stored_bytes} bytes: delete something first.",
                retry_after=max(1, round(seconds)),
            )

    def _has_requests(self, credential: Credential) -> bool:
        account = self._accounts.get(credential.user_id)
        return account is not None and account.requests > 0

    def _has_room(self, credential: Credential, unreported: int | None = None) -> bool:
        """Whether it is known to be so, with no more than so much unreported."""
        account = self._accounts.get(credential.user_id)
        if account is None or account.stored is None:
            return False
        has_reported = unreported is None or account.written <= unreported
        return has_reported and account.stored + account.written < self._quota.stored_bytes

    async def _draw_requests(self, credential: Credential) -> None:
        """Only the database can tell that a context token is one: until it has, its holder learns nothing.

        Requests under tokens are counted late, so there may be some to be made up for first.
        """
        async with self._queue(credential).front():
            if self._has_requests(credential):
                return
            account = self._accounts.get(credential.user_id)
            if not (isinstance(credential, Owner) and account and account.empty_until > monotonic()):
                await self._draw(credential, self._quota.block - (account.requests if account else 0))
        if not self._has_requests(credential):
            await asyncio.sleep(uniform(*_REFUSAL_S))  # noqa: S311 - nobody gains by guessing it
            raise Exhausted(
                f"More than {self._quota.requests_per_minute} requests in a minute: make fewer.",
                retry_after=max(1, round(self._account(credential.user_id).empty_until - monotonic())),
            )

    async def _report(self, credential: Credential) -> None:
        """Tell what was written, and have it counted if it is time for that."""
        drawn = await self._draw(credential, 0)
        account, count_s = self._account(credential.user_id), drawn.count_s
        if drawn.wants_counting:
            async with self._units.open(credential, "read") as work:
                size = await work.allowances.measure()
            async with self._units.open(credential, "write") as work:
                count_s = await note_size(work, size)
                await work.commit()
            account.stored = size
        if not self._has_room(credential):
            account.full_until = monotonic() + count_s

    async def _draw(self, credential: Credential, requests: int) -> Draft:
        account = self._accounts.get(credential.user_id)
        written = account.written if account else 0
        if account:
            account.written = 0
        try:
            async with self._units.open(credential, "write") as work:
                drawn = await draw(work, self._quota, requests, written)
                await work.commit()
        except BaseException:
            if account:
                account.written += written
            raise
        account = self._account(credential.user_id)
        account.requests += drawn.requests
        account.stored = drawn.stored_bytes
        if drawn.requests < requests:
            account.empty_until = monotonic() + drawn.wait_s
        return drawn

    def _queue(self, credential: Credential) -> _Queue:
        queue = self._queues.get(credential)
        if queue is None:
            queue = self._queues[credential] = _Queue()
        return queue

    def _account(self, user_id: UserId) -> _Account:
        """Of somebody who was found to be that person, made if need be."""
        account = self._accounts.get(user_id)
        if account is None:
            account = self._accounts[user_id] = _Account()
            if len(self._accounts) > _ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(user_id)
        return account
