"""A process that finds the lease of its turn expired, though a renewal was stored since: the turn continues."""

from collections.abc import AsyncGenerator
from datetime import timedelta

from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.domain.turn_event import TurnEvent, TurnResumedEvent
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS
from tests.turns import profiles_of

ADA = Owner(UserId("ada"))


class MisledAgent:
    """An agent whose first run is stopped: its process is told that another one has continued the turn."""

    name = "misled"
    model = None

    def __init__(self, event_bus: LocalEventBus) -> None:
        self._event_bus = event_bus

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        if agent_run.attempt == 1:
            with self._event_bus.subscribe(ADA, agent_run.turn_id) as subscription:
                resumed = TurnEvent.of(agent_run.turn_id, 2, TurnResumedEvent(2, "recovery"))
                self._event_bus.publish(ADA.user_id, [resumed])
                while True:
                    await subscription.next_events(60)
        yield TextDelta("Here I am.")

    async def aclose(self) -> None:
        """There is nothing to release."""


async def test_turn_is_continued_after_its_process_found_the_lease_expired(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    event_bus = LocalEventBus()
    units = SqlUnitsOfWork(engine, event_bus)
    limits = TurnLimits(replace(LIMITS, lease=timedelta(seconds=0.5), attempts=3), timedelta(minutes=1), 3)
    profiles = profiles_of(agent=MisledAgent(event_bus))
    runner = TurnRunner(Dispatcher(units, lambda _call: None), event_bus, profiles, limits)

    result = await runner.wait(ADA, await runner.start(ADA, NewMessage("Hello")))
    await runner.aclose()
    await engine.dispose()

    assert result.message
    assert (result.turn.status, result.turn.attempt, result.message.content) == ("completed", 2, "Here I am.")
