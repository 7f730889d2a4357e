"""The event bus of one process: delivers the events of committed units of work to subscribers in the same process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

Key = tuple[UserId, TurnId]

MAX_BUFFERED_BYTES = 64 * 1024
"""A subscriber that falls further behind is only woken, and reads the events from the database."""


class LocalSubscription:
    """One subscriber of one turn, and the events that it has not read yet."""

    def __init__(self, limit_timeout: Callable[[float], float]) -> None:
        self._limit_timeout = limit_timeout
        self._events: list[TurnEvent] = []
        self._bytes = 0
        self._woken = asyncio.Event()

    def deliver(self, events: list[TurnEvent]) -> None:
        """Buffer committed events and wake the subscriber. An empty list says that some may have been committed."""
        self._bytes += sum(len(event.body) for event in events)
        if events and self._bytes <= MAX_BUFFERED_BYTES:
            self._events += events
        else:
            self._events.clear()
            self._bytes = MAX_BUFFERED_BYTES
        self._woken.set()

    async def next_events(self, timeout_s: float) -> list[TurnEvent]:
        try:
            async with asyncio.timeout(self._limit_timeout(timeout_s)):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        events, self._events, self._bytes = self._events, [], 0
        return events


class LocalEventBus:
    """Serves one process. SQLite needs no other, because it is used by one process."""

    def __init__(self) -> None:
        self._subscriptions: dict[Key, set[LocalSubscription]] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connect to the event buses of other processes, if there can be any, until the context is left."""
        yield

    @contextmanager
    def subscribe(self, owner: Owner, turn_id: TurnId) -> Iterator[LocalSubscription]:
        key, subscription = (owner.user_id, turn_id), LocalSubscription(self._limit_timeout)
        self._subscriptions.setdefault(key, set()).add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[key].discard(subscription)
            if not self._subscriptions[key]:
                del self._subscriptions[key]

    def wake_all(self) -> None:
        for key in list(self._subscriptions):
            self._deliver(key, [])

    def publish(self, user_id: UserId, events: Iterable[TurnEvent]) -> None:
        """Deliver events that were committed in this order."""
        by_turn: dict[TurnId, list[TurnEvent]] = {}
        for event in events:
            by_turn.setdefault(event.turn_id, []).append(event)
        for turn_id, of_turn in by_turn.items():
            self._deliver((user_id, turn_id), of_turn)

    def _deliver(self, key: Key, events: list[TurnEvent]) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.deliver(events)

    def _limit_timeout(self, timeout_s: float) -> float:
        return timeout_s
