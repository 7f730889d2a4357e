"""What the application does when its process is told to stop, while the server still lets requests end."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def after_termination(seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Acts so long after the signal that ends the process, beside what is done at it already.

    A server tells an application that it stops (ASGI, lifespan) only once it has cut off every request.
    """
    loop = asyncio.get_running_loop()
    acting: list[asyncio.Task[None]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def begin() -> None:
        loop.call_later(seconds, lambda: acting.append(loop.create_task(act())))

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)
        already = before[signal.Signals(number)]
        if callable(already):
            already(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, already in before.items():
            signal.signal(number, already)
