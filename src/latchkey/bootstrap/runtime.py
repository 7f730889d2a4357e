"""How the interpreter is set up in a process that serves, and on the way there."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import structlog

_YOUNG, _MIDDLE, _OLD = 5_000, 5, 200
"""A thousand objects take 0.3 ms to look through: a pause of 2 ms, five times as often one of 8 ms."""
_TIDY_S = 10
_QUICK = 50_000
"""Fewer old objects than these are looked through in 15 ms: those of 50 running turns."""
_SWITCH_S = 0.0005

_NOT_NEEDED = ("advanced_alchemy.service", "rich")
"""Litestar imports the one for a class, structlog the other for its tracebacks, where they are installed, and they are.
Neither is used here: 0.2 s of CPU and 11 MB."""


@contextmanager
def importing() -> Iterator[None]:
    """A third of the CPU that imports take goes to looking for garbage among what they make, and it is none.

    Nor is it ever looked through again.
    """
    absent = [name for name in _NOT_NEEDED if name not in sys.modules]
    # Importlib's own way of saying that a module is not there.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    gc.disable()
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
        gc.freeze()
        gc.enable()


@asynccontextmanager
async def tuned() -> AsyncIterator[None]:
    """Shorter pauses, fewer of them. To be entered when all is made that is there to stay.

    With 200 turns running, no pause is longer than 15 ms; before, the longest were 60.
    """
    # Looked through on every full collection, what is there by now would cost pauses.
    gc.collect()
    gc.freeze()
    # A running turn is a thousand objects that live as long as it does: by default they are looked through again
    # and again while it makes more.
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    # SQLite's statements come back from a thread, which by default waits 5 ms for a busy interpreter.
    sys.setswitchinterval(_SWITCH_S)
    tidying = asyncio.create_task(_tidy_up())
    try:
        yield
    finally:
        tidying.cancel()


async def _tidy_up() -> None:
    while True:
        await asyncio.sleep(_TIDY_S)
        tidy()


def tidy() -> None:
    """Look through the old objects, if that is quick and there are new ones among them.

    Left to itself the collector does it after so many objects more, which a busy process has within minutes; with
    200 turns running it takes 100 ms.
    """
    has_something_new = any(gc.get_count()[1:])
    if has_something_new and len(gc.get_objects(generation=2)) < _QUICK:
        gc.collect()


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
