"""Signals that end the process: drain at the first one, then call the previous handlers."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from latchkey.bootstrap.runtime import before_termination
from tests.polling import wait_until


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that the previous handlers have received."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_signal_is_passed_on_after_drain_and_later_signals_at_once(handled: list[int]) -> None:
    begun, prepared = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        begun.set()
        await prepared.wait()

    async def is_passed_on(count: int) -> bool:
        return len(handled) == count

    with before_termination(prepare):
        signal.raise_signal(signal.SIGTERM)
        await begun.wait()
        assert handled == []
        prepared.set()
        await wait_until(lambda: is_passed_on(1))
        signal.raise_signal(signal.SIGINT)
        await wait_until(lambda: is_passed_on(2))

    assert handled == [signal.SIGTERM, signal.SIGINT]


async def test_second_interrupt_cancels_drain(handled: list[int]) -> None:
    begun = asyncio.Event()

    async def prepare() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def is_passed_on() -> bool:
        return bool(handled)

    with before_termination(prepare):
        signal.raise_signal(signal.SIGINT)
        await begun.wait()
        signal.raise_signal(signal.SIGINT)
        await wait_until(is_passed_on)

    assert handled == [signal.SIGINT]
