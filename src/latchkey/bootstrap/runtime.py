"""Tuning of the Python interpreter: garbage collection, thread switching, and signals that end the process."""

import asyncio
import gc
import logging
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from setproctitle import setproctitle

_GENERATION_0, _GENERATION_1, _GENERATION_2 = 5_000, 5, 200
"""Thresholds of the garbage collector. Small young generations keep each pause short."""
_FULL_COLLECTION_EVERY_S = 10
_MAX_OLD_OBJECTS = 50_000
"""With more objects in the oldest generation, a full collection would pause the process for too long."""
_THREAD_SWITCH_S = 0.0005

_log = logging.getLogger("latchkey.termination")


def name_worker_process() -> None:
    """Name a worker process `latchkey: N` in `ps`, `top` and `pgrep`, instead of the command line of multiprocessing.

    A process that was not started by multiprocessing keeps its name.
    """
    _, is_worker, number = multiprocessing.current_process().name.partition("SpawnProcess-")
    if is_worker:
        setproctitle(f"latchkey: {number}")


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable garbage collection during imports, and exclude the imported objects from later collections.

    Imports create many objects and almost no garbage, so collections during imports only cost time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@asynccontextmanager
async def tuned() -> AsyncIterator[None]:
    """Tune the interpreter for short pauses while the service runs. Enter it after everything permanent is created."""
    # Permanent objects would otherwise be scanned by every full collection.
    gc.collect()
    gc.freeze()
    # The objects of a running turn live as long as the turn: with the default thresholds they are scanned again and
    # again while the turn creates more.
    gc.set_threshold(_GENERATION_0, _GENERATION_1, _GENERATION_2)
    # The results of SQLite statements come from a thread, which by default waits 5 ms for a busy interpreter.
    sys.setswitchinterval(_THREAD_SWITCH_S)
    collector = asyncio.create_task(_collect_periodically())
    try:
        yield
    finally:
        collector.cancel()


async def _collect_periodically() -> None:
    while True:
        await asyncio.sleep(_FULL_COLLECTION_EVERY_S)
        collect_if_quick()


def collect_if_quick() -> None:
    """Run a full collection if there are new objects and few old ones, so that the pause is short."""
    has_new_objects = any(gc.get_count()[1:])
    if has_new_objects and len(gc.get_objects(generation=2)) < _MAX_OLD_OBJECTS:
        gc.collect()


@contextmanager
def before_termination(prepare: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run `prepare` at SIGTERM or SIGINT, and call the previous signal handler when it has ended.

    Needed because the server refuses connections at the signal, and tells the application only after it has cut off
    every request. A second SIGINT during the preparation cancels it.
    """
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}
    preparations: list[asyncio.Task[None]] = []

    def terminate(number: int) -> None:
        previous[signal.Signals(number)](number, None)

    async def prepare_and_terminate(number: int) -> None:
        _log.info("draining")
        try:
            await prepare()
        finally:
            terminate(number)

    def on_signal(number: int) -> None:
        if not preparations:
            preparations.append(loop.create_task(prepare_and_terminate(number)))
        elif preparations[0].done():
            terminate(number)
        elif number == signal.SIGINT:
            preparations[0].cancel()

    def handle(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_signal, number)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
