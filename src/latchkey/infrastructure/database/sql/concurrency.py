"""Who may have how many units of work open at once: a crowd of one caller's waits, and nobody else's."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from latchkey.domain.credentials import Credential, TokenSecret, UserId

SHARE = 2
"""Of a process's connections. More of them do not make one caller faster: the processor is what they share."""

STRANGERS = 5
_REMEMBERED = 10_000

QUEUE_S = 10
"""Whoever has not come to the front of a queue by then is told that the database is not available."""


class Shares:
    """A person has theirs, and all their tokens have theirs, once each was found alive.

    A made-up token names whom it likes, and must not stand in their way: all that nobody has met share a few places,
    so that a flood of them is a crowd of one.
    """

    def __init__(self) -> None:
        self._places: WeakValueDictionary[tuple[type, UserId], asyncio.Semaphore] = WeakValueDictionary()
        self._strangers = asyncio.Semaphore(STRANGERS)
        self._met: OrderedDict[TokenSecret, None] = OrderedDict()

    def place(self, credential: Credential) -> AbstractAsyncContextManager[None]:
        """Held while a unit of work is open. Raises `TimeoutError` if it takes too long to get one."""
        if isinstance(credential, TokenSecret) and credential not in self._met:
            return held(self._strangers)
        caller = (type(credential), credential.user_id)
        places = self._places.get(caller)
        if places is None:
            places = self._places[caller] = asyncio.Semaphore(SHARE)
        return held(places)

    def meet(self, secret: TokenSecret) -> None:
        """It was found alive once, or made here, and so is no stranger, whatever becomes of it."""
        if secret not in self._met:
            self._met[secret] = None
            if len(self._met) > _REMEMBERED:
                self._met.popitem(last=False)


def held(lock: asyncio.Lock | asyncio.Semaphore) -> AbstractAsyncContextManager[None]:
    """Raises `TimeoutError` if whoever has it keeps it too long: where each waits in vain, the last waits for all."""
    return _held_in_time(lock) if lock.locked() else lock


@asynccontextmanager
async def _held_in_time(lock: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    async with asyncio.timeout(QUEUE_S):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
