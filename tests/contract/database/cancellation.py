"""Cancels a coroutine at exactly one of its await points."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any

Operation = Coroutine[Any, Any, None]


class CancelledAt:
    """Awaits a coroutine, and cancels the awaiting task at the await point with this number."""

    def __init__(self, wait: int, operation: Operation) -> None:
        self._wait = wait
        self._operation = operation

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self._operation.send
        value: Any = None
        for wait in count(1):
            try:
                waiting_for = step(value)
            except StopIteration:
                return
            if wait == self._wait and (task := asyncio.current_task()):
                task.cancel()
            try:
                value, step = (yield waiting_for), self._operation.send
            except BaseException as error:  # noqa: BLE001 # the coroutine handles it
                value, step = error, self._operation.throw


async def is_cancelled_at(wait: int, operation: Operation) -> bool:
    """Whether the coroutine reached the await point with this number; if so, it was cancelled there."""

    async def run() -> None:
        await CancelledAt(wait, operation)

    (outcome,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
        raise outcome
    return outcome is not None
