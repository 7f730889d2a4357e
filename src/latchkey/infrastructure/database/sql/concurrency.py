"""Concurrency limits per user: many concurrent calls of one user do not delay those of others."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from latchkey.domain.credentials import Credential, TokenSecret, UserId

SLOTS_PER_CALLER = 2
"""Of a process's connections. More would not make one user faster: the processor is the bottleneck."""

UNVERIFIED_SLOTS = 5
_MAX_VERIFIED_TOKENS = 10_000

QUEUE_S = 10
"""Waiting longer than this raises `TimeoutError`, which becomes `Unavailable`."""


class ConcurrencyLimiter:
    """Each user has slots for their own units of work, and slots for those under their verified tokens.

    An unverified token can claim any user, so it must not use that user's slots. All unverified tokens share a few.
    """

    def __init__(self) -> None:
        self._slots: WeakValueDictionary[tuple[type, UserId], asyncio.Semaphore] = WeakValueDictionary()
        self._unverified = asyncio.Semaphore(UNVERIFIED_SLOTS)
        self._verified: OrderedDict[TokenSecret, None] = OrderedDict()

    def slot(self, credential: Credential) -> AbstractAsyncContextManager[None]:
        """Hold a slot while a unit of work is open. Raises `TimeoutError` if none becomes free."""
        if isinstance(credential, TokenSecret) and credential not in self._verified:
            return acquire_in_time(self._unverified)
        caller = (type(credential), credential.user_id)
        slots = self._slots.get(caller)
        if slots is None:
            slots = self._slots[caller] = asyncio.Semaphore(SLOTS_PER_CALLER)
        return acquire_in_time(slots)

    def mark_verified(self, secret: TokenSecret) -> None:
        """Remember that the token was valid once or was created here. It stays so after its revocation."""
        if secret not in self._verified:
            self._verified[secret] = None
            if len(self._verified) > _MAX_VERIFIED_TOKENS:
                self._verified.popitem(last=False)


def acquire_in_time(lock: asyncio.Lock | asyncio.Semaphore) -> AbstractAsyncContextManager[None]:
    """Acquire the lock. Raises `TimeoutError` after `QUEUE_S`, because waiting times would add up in a queue."""
    return _acquire_with_timeout(lock) if lock.locked() else lock


@asynccontextmanager
async def _acquire_with_timeout(lock: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    async with asyncio.timeout(QUEUE_S):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
