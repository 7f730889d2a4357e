"""What is done when a process is told to stop, before the server stops answering."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog

_log = structlog.get_logger("latchkey.termination")


@contextmanager
def before_termination(prepare: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """At the signal that ends the process, prepares first, and then hands it to whoever handled it before.

    A server refuses connections as soon as it is told, and tells an application only once it has cut off every
    request. Interrupted twice at a terminal, the preparation is cancelled.
    """
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    preparing: list[asyncio.Task[None]] = []

    def end(number: int) -> None:
        before[signal.Signals(number)](number, None)

    async def prepare_and_end(number: int) -> None:
        _log.info("draining")
        try:
            await prepare()
        finally:
            end(number)

    def begin(number: int) -> None:
        if not preparing:
            preparing.append(loop.create_task(prepare_and_end(number)))
        elif preparing[0].done():
            end(number)
        elif number == signal.SIGINT:
            preparing[0].cancel()

    def handle(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin, number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, already in before.items():
            signal.signal(number, already)
