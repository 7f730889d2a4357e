"""Slots for running turns: fair by user, and the deadline of a turn begins when it has one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import executor
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.finish import TurnResult, cancel_turn
from latchkey.application.turns.runner import TurnHandle, TurnRunner
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.concurrency import FairSlots
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS
from tests.polling import TIMEOUT_S, wait_until
from tests.turns import profiles_of

ADA, BOB = Owner(UserId("ada")), Owner(UserId("bob"))
DEADLINE = timedelta(seconds=1)
LEASE = timedelta(seconds=0.6)


class HangingAgent:
    """An agent that answers every message but "hang"."""

    name = "hanging"
    model = None

    def __init__(self) -> None:
        self.running = 0

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        self.running += 1
        try:
            if agent_run.message == "hang":
                await asyncio.Event().wait()
            yield TextDelta("Hm.", is_last=True)
        finally:
            self.running -= 1

    async def aclose(self) -> None:
        """There is nothing to release."""


class Turns:
    """A runner whose turns have a short deadline and a lease that is shorter still."""

    def __init__(self, units: SqlUnitsOfWork, event_bus: LocalEventBus, slots: FairSlots[UserId]) -> None:
        self.agent = HangingAgent()
        self.dispatcher = Dispatcher(units, lambda _call: None)
        limits = TurnLimits(replace(LIMITS, lease=LEASE), DEADLINE, 3)
        self.runner = TurnRunner(self.dispatcher, event_bus, profiles_of(agent=self.agent, slots=slots), limits)

    async def start(self, owner: Owner, message: str) -> TurnHandle:
        return await self.runner.start(owner, NewMessage(message))

    async def result(self, owner: Owner, handle: TurnHandle) -> TurnResult:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.runner.wait(owner, handle)

    async def status(self, owner: Owner, handle: TurnHandle) -> str:
        return (await self.result(owner, handle)).turn.status


@pytest.fixture
async def turns(database_url: str, slots: FairSlots[UserId]) -> AsyncIterator[Turns]:
    engine, event_bus = create_engine(database_url), LocalEventBus()
    turns = Turns(SqlUnitsOfWork(engine, event_bus), event_bus, slots)
    yield turns
    await turns.runner.aclose()
    await engine.dispose()


@pytest.fixture
def slots(request: pytest.FixtureRequest) -> FairSlots[UserId]:
    return FairSlots(*getattr(request, "param", (1, 1)))


@pytest.mark.parametrize("slots", [(4, 2)], indirect=True)
async def test_concurrent_turns_of_one_user_that_hang_do_not_delay_others(turns: Turns) -> None:
    hanging = [await turns.start(ADA, "hang") for _ in range(4)]
    await wait_until(lambda: is_running(turns, 2))
    async with asyncio.timeout(DEADLINE.total_seconds()):
        statuses = [await turns.status(BOB, await turns.start(BOB, "Hello")) for _ in range(3)]

    assert statuses == ["completed"] * 3
    assert not any(handle.task.done() for handle in hanging if handle.task)


async def test_deadline_of_a_waiting_turn_begins_when_it_runs(turns: Turns) -> None:
    """Meanwhile its lease is renewed, which is shorter than its wait."""
    hanging = await turns.start(ADA, "hang")
    waiting = [await turns.start(owner, "Hello") for owner in (ADA, BOB)]
    ended = await turns.result(ADA, hanging)

    assert (ended.turn.status, ended.turn.error and ended.turn.error.code) == ("failed", "deadline")
    assert [await turns.status(owner, turn) for owner, turn in zip((ADA, BOB), waiting, strict=True)] == [
        "completed"
    ] * 2


async def test_wait_for_a_slot_fails_after_timeout(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_MAX_WAIT_DEADLINES", 0.1)
    await turns.start(ADA, "hang")
    await wait_until(lambda: is_running(turns, 1))
    ended = await turns.result(BOB, await turns.start(BOB, "Hello"))

    assert ended.turn.error
    assert ended.turn.error.code == "deadline"
    assert "waited" in ended.turn.error.detail


async def test_cancelled_turn_that_waits_for_a_slot_never_runs(turns: Turns) -> None:
    await turns.start(ADA, "hang")
    await wait_until(lambda: is_running(turns, 1))
    waiting = await turns.start(BOB, "hang")
    await turns.dispatcher.call(BOB, cancel_turn, waiting.turn_id)

    assert await turns.status(BOB, waiting) == "cancelled"
    assert turns.agent.running <= 1


async def is_running(turns: Turns, count: int) -> bool:
    return turns.agent.running == count
