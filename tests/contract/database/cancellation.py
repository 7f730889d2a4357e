"""Cancels a coroutine at exactly one of its await points."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any

Work = Coroutine[Any, Any, None]


class CancelledAt:
    """Awaits the work, and cancels whoever does so when it waits for the so-manieth time."""

    def __init__(self, wait: int, uow: Work) -> None:
        self._wait = wait
        self._work = uow

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self._work.send
        given: Any = None
        for wait in count(1):
            try:
                waiting_for = step(given)
            except StopIteration:
                return
            if wait == self._wait and (task := asyncio.current_task()):
                task.cancel()
            try:
                given, step = (yield waiting_for), self._work.send
            except BaseException as error:  # noqa: BLE001 # the work's own to handle
                given, step = error, self._work.throw


async def is_cancelled_at(wait: int, uow: Work) -> bool:
    """Whether the work waited so often; if so, it was cancelled there and has ended as cancelled."""

    async def run() -> None:
        await CancelledAt(wait, uow)

    (outcome,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
        raise outcome
    return outcome is not None
