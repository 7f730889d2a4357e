"""A runner that is closed while a turn is being started: the turn is interrupted."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS
from tests.turns import profiles_of

ADA = Owner(UserId("ada"))


class EndlessAgent:
    """An agent that never completes its answer."""

    name = "endless"
    model = None

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta("Hm.")
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """There is nothing to release."""


async def test_turn_started_after_runner_close_is_interrupted(sqlite_url: str) -> None:
    """The start waits for a writer, the runner is closed, and then the writer ends."""
    engine = create_engine(sqlite_url)
    event_bus = LocalEventBus()
    units = SqlUnitsOfWork(engine, event_bus)
    limits = TurnLimits(LIMITS, timedelta(minutes=1), 3)
    runner = TurnRunner(Dispatcher(units, lambda _call: None), event_bus, profiles_of(agent=EndlessAgent()), limits)
    async with units.open(ADA, "write"):
        beginning = asyncio.create_task(runner.start(ADA, NewMessage("Hello")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(runner.aclose())
        await asyncio.sleep(0)
    begun = await beginning
    ended = await runner.wait(ADA, begun)
    await closing
    await engine.dispose()

    assert ended.turn.status == "interrupted"
