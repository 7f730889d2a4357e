"""An agent that is loaded with its first turn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from threading import Event
from uuid import uuid4

import pytest

from latchkey.bootstrap.agents import LazyAgent
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.credentials import Scope, TokenSecret, UserId
from latchkey.domain.turn import TurnId


class Parrot:
    """Says what it is told."""

    name = "parrot"
    is_closed = False

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta(agent_run.message)

    async def aclose(self) -> None:
        self.is_closed = True


class Aviary:
    """Where parrots come from, after as many refusals as it is told to begin with."""

    def __init__(self, refusals: int = 0) -> None:
        self._refusals = refusals
        self.parrots: list[Parrot] = []

    def load(self) -> Parrot:
        if self._refusals:
            self._refusals -= 1
            raise ImportError("no parrots today")
        self.parrots.append(Parrot())
        return self.parrots[-1]


def saying(message: str) -> AgentRun:
    me = UserId("me")
    return AgentRun(
        turn_id=TurnId(uuid4()),
        instructions="Repeat.",
        history=[],
        message=message,
        secret=TokenSecret.mint(me),
        scope=Scope(me),
        max_steps=1,
    )


async def said(agent: LazyAgent, message: str) -> list[AgentEvent]:
    async with aclosing(agent.run(saying(message))) as events:
        return [event async for event in events]


async def test_it_is_not_loaded_before_its_first_turn() -> None:
    aviary = Aviary()
    agent = LazyAgent("parrot", aviary.load)

    await agent.aclose()

    assert (agent.name, aviary.parrots) == ("parrot", [])


async def test_turns_that_begin_together_share_one_agent() -> None:
    aviary = Aviary()
    agent = LazyAgent("parrot", aviary.load)

    heard = await asyncio.gather(*(said(agent, str(number)) for number in range(20)))

    assert heard == [[TextDelta(str(number))] for number in range(20)]
    assert await said(agent, "later") == [TextDelta("later")]
    assert len(aviary.parrots) == 1


async def test_what_goes_wrong_fails_that_turn_and_not_the_next() -> None:
    agent = LazyAgent("parrot", Aviary(refusals=1).load)

    with pytest.raises(ImportError, match="no parrots"):
        await said(agent, "hello")

    assert await said(agent, "hello again") == [TextDelta("hello again")]


async def test_closing_it_closes_what_was_loaded() -> None:
    aviary = Aviary()
    agent = LazyAgent("parrot", aviary.load)
    await said(agent, "hello")

    await agent.aclose()

    assert [parrot.is_closed for parrot in aviary.parrots] == [True]


async def test_closing_it_closes_what_is_being_loaded() -> None:
    """Though the turn that it was loaded for is given up."""
    aviary, began, gate = Aviary(), Event(), Event()

    def load() -> Parrot:
        began.set()
        gate.wait()
        return aviary.load()

    agent = LazyAgent("parrot", load)
    turn = asyncio.create_task(said(agent, "hello"))
    await asyncio.to_thread(began.wait)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    gate.set()
    await agent.aclose()

    assert [parrot.is_closed for parrot in aviary.parrots] == [True]
