"""Signals that end a process: it prepares at the first, and holds none back afterwards."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from latchkey.bootstrap.runtime import before_termination
from tests.polling import wait_until


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What the handlers that were there before have been handed."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_signal_is_handed_on_once_the_process_is_prepared_and_any_later_one_at_once(handled: list[int]) -> None:
    begun, prepared = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        begun.set()
        await prepared.wait()

    async def has_been_handed(count: int) -> bool:
        return len(handled) == count

    with before_termination(prepare):
        signal.raise_signal(signal.SIGTERM)
        await begun.wait()
        assert handled == []
        prepared.set()
        await wait_until(lambda: has_been_handed(1))
        signal.raise_signal(signal.SIGINT)
        await wait_until(lambda: has_been_handed(2))

    assert handled == [signal.SIGTERM, signal.SIGINT]


async def test_interrupted_twice_it_prepares_no_longer(handled: list[int]) -> None:
    begun = asyncio.Event()

    async def prepare() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def has_been_handed() -> bool:
        return bool(handled)

    with before_termination(prepare):
        signal.raise_signal(signal.SIGINT)
        await begun.wait()
        signal.raise_signal(signal.SIGINT)
        await wait_until(has_been_handed)

    assert handled == [signal.SIGINT]
