"""Follow a turn's events as they happen, from any replica."""

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

PATIENCE_S = 8.0
"""After so long without news a follower is told that there are none, and the log is looked at."""

QUIET_S = 2.0
"""When nothing follows an event for so long, it is time to see how long the turn's lease is."""
MAX_SUBSCRIPTIONS_PER_USER = 100
"""Of one person's turns, in one process: each costs 27 KiB for as long as a client likes."""
_JUST_AFTER_S = 0.1
_AGAIN_S = 1.0


class TurnSubscriptions:
    """Where turns are followed. Once it is closed nobody is kept waiting: they go on elsewhere, from where they are."""

    def __init__(self, dispatcher: Dispatcher, event_bus: EventBus) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._is_closed = False
        self._followers = Counter[UserId]()

    def close(self) -> None:
        self._is_closed = True
        self._event_bus.wake_all()

    def check_limit(self, owner: Owner) -> None:
        """Raises `Exhausted` if as many follow a person's turns here as may."""
        if self._followers[owner.user_id] >= MAX_SUBSCRIPTIONS_PER_USER:
            raise Exhausted(
                f"Limit of {MAX_SUBSCRIPTIONS_PER_USER} open event streams reached: close one and try again."
            )

    async def follow(self, owner: Owner, turn_id: TurnId, after: int) -> AsyncGenerator[list[TurnEvent], None]:
        """The events after that one, as they happen, up to the last; now and then an empty list if there are none.

        It ends early if the turn is deleted. While the database does not answer, there are none.
        """
        with self._counted(owner), self._event_bus.subscribe(owner, turn_id) as subscription:
            news: list[TurnEvent] = []
            while True:
                is_last_look = self._is_closed
                log = None if is_last_look else _continued(news, after)
                if log is None:
                    look = asyncio.create_task(self._look(owner, turn_id, after))
                    try:
                        while not (await asyncio.wait([look], timeout=PATIENCE_S))[0]:
                            yield []
                        log = look.result()
                    finally:
                        look.cancel()
                    yield log.events
                elif log.events:
                    yield log.events
                if log.is_over:
                    return
                after = log.events[-1].seq if log.events else after
                if log.has_more:
                    news = []
                elif is_last_look:
                    return
                else:
                    news = await subscription.next_events(_timeout_s(log))

    @contextmanager
    def _counted(self, owner: Owner) -> Iterator[None]:
        self._followers[owner.user_id] += 1
        try:
            yield
        finally:
            self._followers -= Counter({owner.user_id: 1})

    async def _look(self, owner: Owner, turn_id: TurnId, after: int) -> EventPage:
        """Into the log. There is nothing more in that of a turn which is deleted, or which cannot be read now."""
        try:
            return await with_expiry(self._dispatcher, owner, read_events, turn_id, after)
        except Unavailable:
            return EventPage([], is_over=False, holds_s=_AGAIN_S)
        except Failure:
            return EventPage([], is_over=True)


def _timeout_s(log: EventPage) -> float:
    return QUIET_S if log.holds_s is None else min(PATIENCE_S, log.holds_s + _JUST_AFTER_S)


def _continued(news: list[TurnEvent], after: int) -> EventPage | None:
    """What the news add after that number; None if something is missing and the log has to be looked at."""
    numbers = [event.seq for event in news]
    is_whole = bool(news) and numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] <= after + 1
    if not is_whole or (news[-1].is_last and news[-1].seq <= after):
        return None
    return EventPage([event for event in news if event.seq > after], news[-1].is_last)
