"""Concurrency limits that are fair by user: many concurrent calls of one user do not delay those of others."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

from latchkey.domain.credentials import Credential, TokenSecret, UserId

Key = TypeVar("Key", bound=Hashable)

CONNECTIONS = 20
"""The database connections of a process."""

SLOTS_PER_CALLER = 2
"""Of a process's connections. More would not make one user faster: the processor is the bottleneck."""

UNVERIFIED_SLOTS = 5
_MAX_VERIFIED_TOKENS = 10_000

QUEUE_S = 10
"""Waiting longer than this raises `TimeoutError`, which becomes `Unavailable`."""


class FairSlots(Generic[Key]):
    """A number of slots, of which each key holds at most a share.

    A slot that becomes free goes to the waiting keys in turn, so a key with many waiters delays another key by one
    slot at most.
    """

    def __init__(self, total: int, share: int) -> None:
        self._free = total
        self._share = share
        self._held: dict[Key, int] = {}
        self._waiting: OrderedDict[Key, deque[asyncio.Future[None]]] = OrderedDict()

    def slot(self, key: Key, timeout_s: float) -> AbstractAsyncContextManager[None]:
        """Hold a slot within the context. Raises `TimeoutError` if none becomes free in time."""
        return _Slot(self, key, timeout_s)

    async def acquire(self, key: Key, timeout_s: float) -> None:
        """Take a slot, which `release` must return. Raises `TimeoutError` if none becomes free in time."""
        # With a free slot, all keys that wait hold their share: a newcomer overtakes none that could use it.
        if self._free and self._held.get(key, 0) < self._share:
            self._take(key)
        else:
            await self._wait(key, timeout_s)

    async def _wait(self, key: Key, timeout_s: float) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(granted)
        try:
            async with asyncio.timeout(timeout_s):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                self.release(key)  # granted while the wait was cancelled
            else:
                self._forget(key, granted)
            raise

    def _forget(self, key: Key, granted: "asyncio.Future[None]") -> None:
        self._waiting[key].remove(granted)
        if not self._waiting[key]:
            del self._waiting[key]

    def _take(self, key: Key) -> None:
        self._free -= 1
        self._held[key] = self._held.get(key, 0) + 1

    def release(self, key: Key) -> None:
        """Return a slot, which goes to a key that waits."""
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        """Give the free slots to the keys that have waited longest since their last slot."""
        for key in list(self._waiting):
            if not self._free:
                return
            if self._held.get(key, 0) < self._share:
                granted = self._waiting[key][0]
                self._forget(key, granted)
                if key in self._waiting:
                    self._waiting.move_to_end(key)
                if not granted.done():
                    self._take(key)
                    granted.set_result(None)


class _Slot(Generic[Key]):
    """A slot as a context. A class, because each request enters it and a generator costs several times as much."""

    def __init__(self, slots: FairSlots[Key], key: Key, timeout_s: float) -> None:
        self._slots = slots
        self._key = key
        self._timeout_s = timeout_s

    async def __aenter__(self) -> None:
        await self._slots.acquire(self._key, self._timeout_s)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._key)


class ConcurrencyLimiter:
    """Distributes the database connections of a process fairly.

    Each user has slots for their own units of work, and slots for those under their verified tokens. An unverified
    token can claim any user, so it must not use that user's slots: it is verified in one of a few other slots, and
    each user that is claimed has at most one of these.
    """

    def __init__(self) -> None:
        self._callers = FairSlots[tuple[type, UserId]](CONNECTIONS - UNVERIFIED_SLOTS, SLOTS_PER_CALLER)
        self._unverified = FairSlots[UserId](UNVERIFIED_SLOTS, 1)
        self._verified: OrderedDict[TokenSecret, None] = OrderedDict()

    def slot(self, credential: Credential) -> AbstractAsyncContextManager[None]:
        """Hold a slot of a verified credential. Raises `TimeoutError` if none becomes free."""
        return self._callers.slot((type(credential), credential.user_id), QUEUE_S)

    def exclusive_slot(self, user_id: UserId) -> AbstractAsyncContextManager[None]:
        """Hold the slot for an exclusive unit of work, which needs none of the user's other slots."""
        return self._callers.slot((ConcurrencyLimiter, user_id), QUEUE_S)

    def verification_slot(self, secret: TokenSecret) -> AbstractAsyncContextManager[None]:
        """Hold a slot while a token is verified. Raises `TimeoutError` if none becomes free."""
        return self._unverified.slot(secret.user_id, QUEUE_S)

    def is_verified(self, secret: TokenSecret) -> bool:
        """Whether the token was valid once or was created here. It stays so after its revocation."""
        return secret in self._verified

    def mark_verified(self, secret: TokenSecret) -> None:
        """Remember that the token was valid once or was created here."""
        if secret not in self._verified:
            self._verified[secret] = None
            if len(self._verified) > _MAX_VERIFIED_TOKENS:
                self._verified.popitem(last=False)


def acquire_in_time(lock: asyncio.Lock) -> AbstractAsyncContextManager[None]:
    """Acquire the lock. Raises `TimeoutError` after `QUEUE_S`, because waiting times would add up in a queue."""
    return _acquire_with_timeout(lock) if lock.locked() else lock


@asynccontextmanager
async def _acquire_with_timeout(lock: asyncio.Lock) -> AsyncIterator[None]:
    async with asyncio.timeout(QUEUE_S):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
