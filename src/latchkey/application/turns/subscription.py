"""Subscriptions to the events of a turn: any replica serves them, from any event on."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.read import EventPage, read_events
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Exhausted, Failure, Unavailable
from latchkey.domain.ports import EventBus
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

KEEPALIVE_S = 8.0
"""After this time without events a subscriber gets an empty batch, and the event log is read."""

LEASE_CHECK_S = 2.0
"""After this time without further events the event log is read again, which also shows when the lease expires."""

MAX_SUBSCRIPTIONS_PER_USER = 100
"""In one process: each subscription uses memory for as long as its client stays connected."""

_AFTER_LEASE_S = 0.1
_RETRY_INTERVAL_S = 1.0


class TurnSubscriptions:
    """Serves subscriptions to turns.

    After `close` all streams end; their clients resume on another replica with `Last-Event-ID`.
    """

    def __init__(self, dispatcher: Dispatcher, event_bus: EventBus) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._is_closed = False
        self._open = Counter[UserId]()

    def close(self) -> None:
        """End all streams after one more read of the event log."""
        self._is_closed = True
        self._event_bus.wake_all()

    def check_limit(self, owner: Owner) -> None:
        """Raises `Exhausted` if the user has reached the limit of open subscriptions in this process."""
        if self._open[owner.user_id] >= MAX_SUBSCRIPTIONS_PER_USER:
            raise Exhausted(
                f"Limit of {MAX_SUBSCRIPTIONS_PER_USER} open event streams reached: close one and try again."
            )

    async def follow(self, owner: Owner, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        """Yield the events after this number as they are committed, up to the final one.

        Yields an empty list now and then if there are none, also while the database does not answer. Ends early if
        the turn is deleted.
        """
        with self._counted(owner), self._event_bus.subscribe(owner, turn_id) as subscription:
            published: list[TurnEvent] = []
            while True:
                is_last_read = self._is_closed
                page = None if is_last_read else _page_of(published, after)
                if page is None:
                    reading = asyncio.create_task(self._read(owner, turn_id, after))
                    try:
                        while not (await asyncio.wait([reading], timeout=KEEPALIVE_S))[0]:
                            yield []
                        page = reading.result()
                    finally:
                        reading.cancel()
                    yield page.events
                elif page.events:
                    yield page.events
                if page.is_over:
                    return
                after = page.events[-1].seq if page.events else after
                if page.has_more:
                    published = []
                elif is_last_read:
                    return
                else:
                    published = await subscription.next_events(_timeout_s(page))

    @contextmanager
    def _counted(self, owner: Owner) -> Iterator[None]:
        self._open[owner.user_id] += 1
        try:
            yield
        finally:
            self._open -= Counter({owner.user_id: 1})

    async def _read(self, owner: Owner, turn_id: TurnId, after: int) -> EventPage:
        """Read the event log. A deleted turn has no more events, and a database that does not answer has none yet."""
        try:
            return await with_expiry(self._dispatcher, owner, read_events, turn_id, after)
        except Unavailable:
            return EventPage([], is_over=False, lease_s=_RETRY_INTERVAL_S)
        except Failure:
            return EventPage([], is_over=True)


def _timeout_s(page: EventPage) -> float:
    return LEASE_CHECK_S if page.lease_s is None else min(KEEPALIVE_S, page.lease_s + _AFTER_LEASE_S)


def _page_of(published: list[TurnEvent], after: int) -> EventPage | None:
    """Return the published events after this number; None if some are missing and the log must be read."""
    numbers = [event.seq for event in published]
    is_complete = bool(published) and numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] <= after + 1
    if not is_complete or (published[-1].is_last and published[-1].seq <= after):
        return None
    return EventPage([event for event in published if event.seq > after], published[-1].is_last)
