"""Who may have how many units of work open at once: a crowd of one caller's waits, and nobody else's."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from latchkey.domain.credentials import Credential, TokenSecret, UserId

SLOTS_PER_CALLER = 2
"""Of a process's connections. More of them do not make one caller faster: the processor is what they share."""

UNVERIFIED_SLOTS = 5
_REMEMBERED = 10_000

QUEUE_S = 10
"""Whoever has not come to the front of a queue by then is told that the database is not available."""


class ConcurrencyLimiter:
    """A person has theirs, and all their tokens have theirs, once each was found alive.

    A made-up token names whom it likes, and must not stand in their way: all that nobody has met share a few places,
    so that a flood of them is a crowd of one.
    """

    def __init__(self) -> None:
        self._slots: WeakValueDictionary[tuple[type, UserId], asyncio.Semaphore] = WeakValueDictionary()
        self._unverified = asyncio.Semaphore(UNVERIFIED_SLOTS)
        self._verified: OrderedDict[TokenSecret, None] = OrderedDict()

    def slot(self, credential: Credential) -> AbstractAsyncContextManager[None]:
        """Held while a unit of work is open. Raises `TimeoutError` if it takes too long to get one."""
        if isinstance(credential, TokenSecret) and credential not in self._verified:
            return acquire_in_time(self._unverified)
        caller = (type(credential), credential.user_id)
        slots = self._slots.get(caller)
        if slots is None:
            slots = self._slots[caller] = asyncio.Semaphore(SLOTS_PER_CALLER)
        return acquire_in_time(slots)

    def mark_verified(self, secret: TokenSecret) -> None:
        """It was found alive once, or made here, and so is no stranger, whatever becomes of it."""
        if secret not in self._verified:
            self._verified[secret] = None
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)


def acquire_in_time(lock: asyncio.Lock | asyncio.Semaphore) -> AbstractAsyncContextManager[None]:
    """Raises `TimeoutError` if whoever has it keeps it too long: where each waits in vain, the last waits for all."""
    return _acquire_or_time_out(lock) if lock.locked() else lock


@asynccontextmanager
async def _acquire_or_time_out(lock: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    async with asyncio.timeout(QUEUE_S):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
