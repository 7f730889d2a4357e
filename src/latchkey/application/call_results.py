"""Storage of results of tools that have run outside a transaction: their effect cannot be taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from latchkey.domain.errors import ConcurrentWrite, Conflict, NotFound, Unauthenticated, Unavailable

RECORD_TIMEOUT_S = 20.0
"""How long this process tries to store a result while the database does not answer."""

_RETRY_INTERVAL_S = 0.5


async def store_result_with_retries(store: Callable[[], Awaitable[None]]) -> bool:
    """Store a result, again and again for `RECORD_TIMEOUT_S` while the database does not answer.

    Returns False if its turn has ended, or its credential is not valid any more. Raises `Unavailable`.
    """
    give_up_at = perf_counter() + RECORD_TIMEOUT_S
    while True:
        try:
            await store()
        except (Unauthenticated, Conflict, NotFound):
            return False
        except Unavailable as failure:
            if perf_counter() > give_up_at:
                raise
            if not isinstance(failure, ConcurrentWrite):
                await asyncio.sleep(_RETRY_INTERVAL_S)
        else:
            return True
