"""Two processes of the service for tests of the event bus: one publishes, one subscribes."""

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
from tests.contract.database.running_turn import RunningTurn
from tests.polling import TIMEOUT_S, wait_until


class Process:
    """One process of the service: its feed, and the units of work that it is told of."""

    def __init__(self, units: SqlUnitsOfWork, event_bus: LocalEventBus) -> None:
        self.units = units
        self.event_bus = event_bus
        self.app = Dispatcher(units, lambda _call: None)


@asynccontextmanager
async def run_process(url: str, listens_at: str | None = None, *, is_listening: bool = True) -> AsyncIterator[Process]:
    """One that is_listening what others say as soon as it is here, unless it cannot."""
    engine = create_engine(url)
    event_bus = PostgreSQLEventBus(listens_at or url) if engine.dialect.name == "postgresql" else LocalEventBus()
    try:
        async with event_bus.run():
            await wait_listening(event_bus, is_listening=is_listening)
            yield Process(SqlUnitsOfWork(engine, event_bus), event_bus)
    finally:
        await engine.dispose()


async def wait_listening(event_bus: LocalEventBus, *, is_listening: bool = True) -> None:
    """Returns once the feed is_listening other processes, or no longer does."""

    async def is_so() -> bool:
        return not isinstance(event_bus, PostgreSQLEventBus) or event_bus._is_listening == is_listening

    await wait_until(is_so)


class BusPair:
    """`running_turn` is that of a turn in the speaker's process."""

    def __init__(self, speaker: Process, listener: Process, owner: Owner) -> None:
        self.speaker = speaker
        self.listener = listener
        self.running_turn = RunningTurn([speaker.app, listener.app], owner)

    async def begin(self) -> None:
        """Whoever follows the turn now is_listening of nothing before that."""
        await self.running_turn.begin()
        await self.carries()

    async def carries(self) -> None:
        """Returns once all that was said before is heard."""
        for _ in range(2):  # what is said together comes in any order
            await self._carry_one()
        for _ in range(5):  # and whoever heard it has had their turn
            await asyncio.sleep(0)

    async def _carry_one(self) -> None:
        nowhere = TurnId(uuid7())
        with self.listener.event_bus.subscribe(self.running_turn.owner, nowhere) as subscription:
            self.speaker.event_bus.publish(
                self.running_turn.owner.user_id, [TurnEvent.of(nowhere, 1, TurnCancelledEvent())]
            )
            await next_events(subscription)


async def next_events(subscription: Subscription) -> list[TurnEvent]:
    """What comes within the patience of a test. Raises `TimeoutError` if nothing does."""
    async with asyncio.timeout(TIMEOUT_S):
        return await subscription.next_events(2 * TIMEOUT_S)
