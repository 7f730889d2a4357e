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
from latchkey.infrastructure.database.event_bus import LocalEventBus, PostgreSQLEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.running_turn import RunningTurn
from tests.polling import TIMEOUT_S, wait_until


class Process:
    """One process of the service: its event bus, and the units of work that publish to it."""

    def __init__(self, units: SqlUnitsOfWork, event_bus: LocalEventBus) -> None:
        self.units = units
        self.event_bus = event_bus
        self.dispatcher = Dispatcher(units, lambda _call: None)


@asynccontextmanager
async def run_process(url: str, listens_at: str | None = None, *, is_listening: bool = True) -> AsyncIterator[Process]:
    """Run a process, which receives the notifications of others unless `is_listening` is false."""
    engine = create_engine(url)
    event_bus = PostgreSQLEventBus(listens_at or url) if engine.dialect.name == "postgresql" else LocalEventBus()
    try:
        async with event_bus.run():
            await wait_listening(event_bus, is_listening=is_listening)
            yield Process(SqlUnitsOfWork(engine, event_bus), event_bus)
    finally:
        await engine.dispose()


async def wait_listening(event_bus: LocalEventBus, *, is_listening: bool = True) -> None:
    """Return once the event bus receives notifications of other processes, or no longer does."""

    async def is_so() -> bool:
        return not isinstance(event_bus, PostgreSQLEventBus) or event_bus._is_listening == is_listening

    await wait_until(is_so)


class BusPair:
    """A publisher and a subscriber; `running_turn` is a turn in the publisher's process."""

    def __init__(self, publisher: Process, subscriber: Process, owner: Owner) -> None:
        self.publisher = publisher
        self.subscriber = subscriber
        self.running_turn = RunningTurn([publisher.dispatcher, subscriber.dispatcher], owner)

    async def start(self) -> None:
        """Start the turn; a subscription made after this receives nothing of the start."""
        await self.running_turn.start()
        await self.flush()

    async def flush(self) -> None:
        """Return once everything published before has been delivered."""
        for _ in range(2):  # concurrent notifications arrive in any order
            await self._flush_one()
        for _ in range(5):  # let the tasks that were woken run
            await asyncio.sleep(0)

    async def _flush_one(self) -> None:
        nowhere = TurnId(uuid7())
        with self.subscriber.event_bus.subscribe(self.running_turn.owner, nowhere) as subscription:
            self.publisher.event_bus.publish(
                self.running_turn.owner.user_id, [TurnEvent.of(nowhere, 1, TurnCancelledEvent())]
            )
            await next_events(subscription)


async def next_events(subscription: Subscription) -> list[TurnEvent]:
    """Return the next events. Raises `TimeoutError` if none arrive."""
    async with asyncio.timeout(TIMEOUT_S):
        return await subscription.next_events(2 * TIMEOUT_S)
