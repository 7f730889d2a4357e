"""A line of news: where something is committed to turns, and the feed where it is heard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uuid_utils.compat import uuid7

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Owner
from latchkey.domain.ports import Subscription
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnCancelledEvent, TurnEvent
from latchkey.infrastructure.database.events.local import LocalEventBus
from latchkey.infrastructure.database.events.postgresql import PostgreSQLEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.course import Course
from tests.polling import TIMEOUT_S, wait_until


class Process:
    """One process of the service: its feed, and the units of work that it is told of."""

    def __init__(self, units: SqlUnitsOfWork, event_bus: LocalEventBus) -> None:
        self.units = units
        self.event_bus = event_bus
        self.app = Dispatcher(units, lambda _call: None)


@asynccontextmanager
async def a_process(url: str, listens_at: str | None = None, *, hears: bool = True) -> AsyncIterator[Process]:
    """One that hears what others say as soon as it is here, unless it cannot."""
    engine = create_engine(url)
    event_bus = PostgreSQLEventBus(listens_at or url) if engine.dialect.name == "postgresql" else LocalEventBus()
    try:
        async with event_bus.run():
            await listens(event_bus, hears=hears)
            yield Process(SqlUnitsOfWork(engine, event_bus), event_bus)
    finally:
        await engine.dispose()


async def listens(event_bus: LocalEventBus, *, hears: bool = True) -> None:
    """Returns once the feed hears other processes, or no longer does."""

    async def is_so() -> bool:
        return not isinstance(event_bus, PostgreSQLEventBus) or event_bus._is_listening == hears

    await wait_until(is_so)


class Line:
    """`course` is that of a turn in the speaker's process."""

    def __init__(self, speaker: Process, listener: Process, owner: Owner) -> None:
        self.speaker = speaker
        self.listener = listener
        self.course = Course([speaker.app, listener.app], owner)

    async def begin(self) -> None:
        """Whoever follows the turn now hears of nothing before that."""
        await self.course.begin()
        await self.carries()

    async def carries(self) -> None:
        """Returns once all that was said before is heard."""
        for _ in range(2):  # what is said together comes in any order
            await self._carry_one()
        for _ in range(5):  # and whoever heard it has had their turn
            await asyncio.sleep(0)

    async def _carry_one(self) -> None:
        nowhere = TurnId(uuid7())
        with self.listener.event_bus.subscribe(self.course.owner, nowhere) as subscription:
            self.speaker.event_bus.publish(self.course.owner.user_id, [TurnEvent.of(nowhere, 1, TurnCancelledEvent())])
            await news(subscription)


async def news(subscription: Subscription) -> list[TurnEvent]:
    """What comes within the patience of a test. Raises `TimeoutError` if nothing does."""
    async with asyncio.timeout(TIMEOUT_S):
        return await subscription.next_events(2 * TIMEOUT_S)
