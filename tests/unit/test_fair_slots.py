"""Fair slots: a key holds at most its share, and free slots go to the waiting keys in turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from latchkey.domain.concurrency import FairSlots
from tests.polling import TIMEOUT_S


class Holders:
    """Tasks that hold or wait for slots. `order` has the keys in the order in which they got one."""

    def __init__(self, slots: FairSlots[str]) -> None:
        self._slots = slots
        self._tasks: list[tuple[str, asyncio.Task[None], asyncio.Event]] = []
        self.order: list[str] = []

    async def add(self, *keys: str) -> None:
        for key in keys:
            release = asyncio.Event()
            self._tasks.append((key, asyncio.create_task(self._hold(key, release)), release))
            await settle()

    async def release(self, key: str) -> None:
        """Release the oldest slot of the key."""
        entry = next(entry for entry in self._tasks if entry[0] == key)
        self._tasks.remove(entry)
        entry[2].set()
        await entry[1]
        await settle()

    async def cancel(self, key: str) -> None:
        """Cancel the newest holder or waiter of the key."""
        entry = next(entry for entry in reversed(self._tasks) if entry[0] == key)
        self._tasks.remove(entry)
        entry[1].cancel()
        await asyncio.gather(entry[1], return_exceptions=True)
        await settle()

    async def _hold(self, key: str, release: asyncio.Event) -> None:
        async with self._slots.slot(key, TIMEOUT_S):
            self.order.append(key)
            await release.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def holders(total: int, share: int) -> AsyncIterator[Holders]:
    holders = Holders(FairSlots[str](total, share))
    yield holders
    for _, task, _ in holders._tasks:
        task.cancel()
    await asyncio.gather(*(task for _, task, _ in holders._tasks), return_exceptions=True)
    assert (holders._slots._free, holders._slots._held, holders._slots._waiting) == (total, {}, {})


async def test_fair_slots_concurrent_holders_of_one_key_get_its_share_only() -> None:
    async with holders(4, share=2) as slots:
        await slots.add("ada", "ada", "ada", "ada", "bob", "cyd")

        assert slots.order == ["ada", "ada", "bob", "cyd"]


async def test_fair_slots_free_slot_goes_to_the_waiting_keys_in_turn() -> None:
    """A key with many waiters delays another key by one slot."""
    async with holders(2, share=2) as slots:
        await slots.add("ada", "ada", *["ada"] * 5, "bob", "cyd", "bob")
        slots.order.clear()
        for _ in range(2):
            await slots.release("ada")
        await slots.release("ada")
        await slots.release("bob")

        assert slots.order == ["ada", "bob", "cyd", "ada"]


async def test_fair_slots_timeout_leaves_no_trace() -> None:
    async with holders(1, share=1) as slots:
        await slots.add("ada")
        with pytest.raises(TimeoutError):
            async with slots._slots.slot("bob", 0.01):
                pass
        await slots.release("ada")
        await slots.add("cyd")

        assert slots.order == ["ada", "cyd"]


async def test_fair_slots_cancelled_waiter_passes_its_slot_on() -> None:
    """Also when it is cancelled in the moment in which it gets a slot."""
    async with holders(1, share=1) as slots:
        async with slots._slots.slot("ada", TIMEOUT_S):
            await slots.add("bob", "cyd", "dan")
            await slots.cancel("dan")
        await slots.cancel("bob")  # it has been granted the slot, and has not run since

        assert slots.order == ["cyd"]
