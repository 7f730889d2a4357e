"""Subscriptions to the events of a turn: any replica serves them, from any event on."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Self
from weakref import finalize

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.read import EventPage, read_events
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Exhausted, StreamBroken, Unavailable
from latchkey.domain.ports import EventBus
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

KEEPALIVE_S = 8.0
"""After this time without events a subscriber gets an empty batch, and the event log is read."""

LEASE_CHECK_S = 2.0
"""After this time without further events the event log is read again, which also shows when the lease expires."""

MAX_SUBSCRIPTIONS_PER_USER = 100
"""In one process: each subscription uses memory for as long as its client stays connected."""

MAX_SUBSCRIPTIONS = 2000
"""In one process, divided among users: each may have as many as are free, so there is always one for another user."""

_AFTER_LEASE_S = 0.1
_RETRY_INTERVAL_S = 1.0


class ReservedSubscription:
    """A reserved subscription. Leaving the context releases it, unless `follow` has been called."""

    def __init__(
        self, events: Callable[[TurnId, int], AsyncGenerator[list[TurnEvent], None]], release: Callable[[], None]
    ) -> None:
        self._events = events
        self._release = release
        self._is_followed = self._is_released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_followed:
            self._release_once()

    def follow(self, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        """Return the events of the turn after this number. The reservation is released with the last of them.

        It is released as well if the returned generator is dropped before its first event: a client may have left.
        """
        self._is_followed = True
        events = self._followed(turn_id, after)
        finalize(events, self._release_once).atexit = False
        return events

    async def _followed(self, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        try:
            async with aclosing(self._events(turn_id, after)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._release_once()

    def _release_once(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._release()


class TurnSubscriptions:
    """Serves subscriptions to turns.

    After `close` all streams end or break; their clients resume on another replica with `Last-Event-ID`.
    """

    def __init__(self, dispatcher: Dispatcher, event_bus: EventBus) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._is_closed = False
        self._open = Counter[UserId]()

    def close(self) -> None:
        """End all streams after one more read of the event log. Those of running turns break."""
        self._is_closed = True
        self._event_bus.wake_all()

    def reserve(self, owner: Owner) -> "ReservedSubscription":
        """Count a subscription before its turn is known.

        Raises `Exhausted` if the user has too many in this process, and `Unavailable` if the process has too many.
        The count is taken at once, so that concurrent requests cannot exceed the limit together.
        """
        if self._open[owner.user_id] >= MAX_SUBSCRIPTIONS_PER_USER:
            raise Exhausted(
                f"Limit of {MAX_SUBSCRIPTIONS_PER_USER} open event streams reached: close one and try again."
            )
        if self._open[owner.user_id] >= MAX_SUBSCRIPTIONS - self._open.total():
            raise Unavailable("Too many event streams are open in this process: try again shortly.")
        self._open[owner.user_id] += 1
        return ReservedSubscription(partial(self._events, owner), partial(self._release, owner.user_id))

    def follow(self, owner: Owner, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        """Reserve a subscription and follow a turn from this event on."""
        with self.reserve(owner) as reservation:
            return reservation.follow(turn_id, after)

    async def _events(self, owner: Owner, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        """Yield the events after this number as they are committed, up to the final one.

        Yields an empty list now and then if there are none, also while the database does not answer. Never ends before
        the final event: raises `StreamBroken` if this process closes, and the failure of the read, such as `NotFound`
        if the turn is deleted.
        """
        with self._event_bus.subscribe(owner, turn_id) as subscription:
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
                    raise StreamBroken("This process is stopping: resume the stream with `Last-Event-ID`.")
                else:
                    published = await subscription.next_events(_timeout_s(page))

    def _release(self, user_id: UserId) -> None:
        self._open -= Counter({user_id: 1})

    async def _read(self, owner: Owner, turn_id: TurnId, after: int) -> EventPage:
        """Read the event log. A database that does not answer has no events yet."""
        try:
            return await with_expiry(self._dispatcher, owner, read_events, turn_id, after)
        except Unavailable:
            return EventPage([], is_over=False, lease_s=_RETRY_INTERVAL_S)


def _timeout_s(page: EventPage) -> float:
    return LEASE_CHECK_S if page.lease_s is None else min(KEEPALIVE_S, page.lease_s + _AFTER_LEASE_S)


def _page_of(published: list[TurnEvent], after: int) -> EventPage | None:
    """Return the published events after this number; None if some are missing and the log must be read."""
    numbers = [event.seq for event in published]
    is_complete = bool(published) and numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] <= after + 1
    is_over = bool(published) and (published[-1].is_of_ended_turn or published[-1].is_waiting)
    if not is_complete or (is_over and published[-1].seq <= after):
        return None
    return EventPage([event for event in published if event.seq > after], is_over)
