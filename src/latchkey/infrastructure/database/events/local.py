"""The news of turns: told at once within the process, and to other processes as far as the database carries it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

Key = tuple[UserId, TurnId]

MOST_BYTES = 64 * 1024
"""What is kept for a follower who does not take it. One who has missed something reads the log."""


class LocalSubscription:
    """One follower of one turn, who waits for `news`."""

    def __init__(self, timeout_s: Callable[[float], float]) -> None:
        self._timeout_s = timeout_s
        self._events: list[TurnEvent] = []
        self._bytes = 0
        self._is_told = asyncio.Event()

    def deliver(self, events: list[TurnEvent]) -> None:
        """These were committed; without any, some may have been."""
        self._bytes += sum(len(event.body) for event in events)
        if events and self._bytes <= MOST_BYTES:
            self._events += events
        else:
            self._events.clear()
            self._bytes = MOST_BYTES
        self._is_told.set()

    async def next_events(self, timeout_s: float) -> list[TurnEvent]:
        try:
            async with asyncio.timeout(self._timeout_s(timeout_s)):
                await self._is_told.wait()
        except TimeoutError:
            return []
        self._is_told.clear()
        events, self._events, self._bytes = self._events, [], 0
        return events


class LocalEventBus:
    """Within one process: all there is to it on SQLite."""

    def __init__(self) -> None:
        self._listeners: dict[Key, set[LocalSubscription]] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """While this is open, the feed carries as far as it can."""
        yield

    @contextmanager
    def subscribe(self, owner: Owner, turn_id: TurnId) -> Iterator[LocalSubscription]:
        key, listener = (owner.user_id, turn_id), LocalSubscription(self._timeout_s)
        self._listeners.setdefault(key, set()).add(listener)
        try:
            yield listener
        finally:
            self._listeners[key].discard(listener)
            if not self._listeners[key]:
                del self._listeners[key]

    def wake_all(self) -> None:
        for key in list(self._listeners):
            self._notify(key, [])

    def publish(self, user_id: UserId, events: Iterable[TurnEvent]) -> None:
        """These were committed, in this order."""
        by_turn: dict[TurnId, list[TurnEvent]] = {}
        for event in events:
            by_turn.setdefault(event.turn_id, []).append(event)
        for turn_id, happened in by_turn.items():
            self._notify((user_id, turn_id), happened)

    def _notify(self, key: Key, events: list[TurnEvent]) -> None:
        for listener in self._listeners.get(key, ()):
            listener.deliver(events)

    def _timeout_s(self, wanted: float) -> float:
        return wanted
