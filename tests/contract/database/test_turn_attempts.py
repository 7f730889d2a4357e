"""The attempts of a turn: what a handed-over one may still do, how many there are, and what limits them together."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.record import release_turn, renew_turn
from latchkey.application.turns.resume import resume_turn
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.errors import Conflict, Unauthenticated
from latchkey.domain.message import NewMessage
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.infrastructure.database.event_bus import LocalEventBus
from tests.builders import LIMITS
from tests.contract.database.running_turn import SPENT, RunningTurn
from tests.turns import profiles_of

PAST = timedelta(seconds=-1)


class RecordingAgent:
    """Notes its runs. Each makes one call of a tool, without executing it, and answers."""

    name = "rehearsal"
    model = None

    def __init__(self) -> None:
        self.runs: list[AgentRun] = []

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        self.runs.append(agent_run)
        yield ToolRequest("more", "add_task", Raw(b"{}"))
        yield ToolReturned("more")
        yield TextDelta("Done.")

    async def aclose(self) -> None:
        pass


class HeldAgent(RecordingAgent):
    """Answers when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        self.runs.append(agent_run)
        await self.gate.wait()
        yield TextDelta("Too late.")


async def resumed(turn: RunningTurn, attempts: int = 3) -> StartedTurn | None:
    limits = replace(LIMITS, attempts=attempts)
    return await turn.dispatchers[1].call(turn.owner, resume_turn, turn.id, profiles_of(), limits)


def runner_of(turn: RunningTurn, agent: RecordingAgent, max_steps: int = 12, max_calls: int = 100) -> TurnRunner:
    limits = TurnLimits(replace(LIMITS, attempts=3), timedelta(minutes=1), max_steps, max_calls)
    return TurnRunner(turn.dispatchers[0], LocalEventBus(), profiles_of(agent=agent), limits)


async def test_released_turn_refuses_the_writes_and_the_token_of_its_former_process(running_turn: RunningTurn) -> None:
    """At once, before any other process continues it."""
    await running_turn.start()
    await running_turn.dispatchers[0].call(running_turn.owner, release_turn, running_turn.id, 1)

    with pytest.raises(Unauthenticated):
        await running_turn.add("Late", call_id="c9", on=1)
    with pytest.raises(Conflict):
        await running_turn.append_text("Late")
    with pytest.raises(Conflict):
        await running_turn.finish()
    assert await running_turn.task_titles() == []


async def test_former_attempt_cannot_release_the_turn(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()
    assert await resumed(running_turn)

    with pytest.raises(Conflict):
        await running_turn.dispatchers[0].call(running_turn.owner, release_turn, running_turn.id, 1)
    assert (await running_turn.read()).status == "running"


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
async def test_turn_that_kills_its_processes_is_run_that_many_times(running_turn: RunningTurn, attempts: int) -> None:
    """As one that needs more memory than there is."""
    await running_turn.start()
    await running_turn.expire_lease()
    runs = 1
    while started := await resumed(running_turn, attempts):
        runs += 1
        renewal = (running_turn.id, PAST, started.turn.attempt)
        await running_turn.dispatchers[0].call(running_turn.owner, renew_turn, *renewal)

    assert runs == attempts
    assert (await running_turn.read()).status == "interrupted"
    assert (await running_turn.event_names())[-1] == "turn.interrupted"


async def test_handover_does_not_count_towards_the_limit_of_attempts(running_turn: RunningTurn) -> None:
    """Any number of restarts ends no turn."""
    await running_turn.start()
    attempt = 1
    for _ in range(6):
        await running_turn.dispatchers[0].call(running_turn.owner, release_turn, running_turn.id, attempt)
        started = await resumed(running_turn, 2)
        assert started
        attempt = started.turn.attempt

    assert attempt == 7
    assert (await running_turn.read()).status == "running"


async def test_limits_of_steps_and_usage_are_those_of_all_attempts(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.append_text("Adding. ")
    await running_turn.add("Milk", call_id="c1")
    await running_turn.append_text("More. ", offset=8)
    await running_turn.add("Bread", call_id="c2")
    before = (await running_turn.read()).usage
    await running_turn.expire_lease()
    agent = RecordingAgent()
    runner = runner_of(running_turn, agent, max_steps=5)
    handle = await runner.resume(running_turn.owner, running_turn.id)

    assert handle
    result = await runner.wait(running_turn.owner, handle)
    (run,) = agent.runs
    assert (run.max_steps, run.usage, len(run.steps)) == (3, before, 2)
    assert (result.turn.status, result.turn.usage) == ("completed", before)


async def test_limit_of_tool_calls_is_that_of_all_attempts(running_turn: RunningTurn) -> None:
    await running_turn.start()
    for number in range(2):
        await running_turn.add(call_id=f"c{number}")
    await running_turn.expire_lease()
    runner = runner_of(running_turn, RecordingAgent(), max_calls=2)
    handle = await runner.resume(running_turn.owner, running_turn.id)

    assert handle
    result = await runner.wait(running_turn.owner, handle)
    assert result.turn.error
    assert result.turn.error.code == "max-steps"


async def test_concurrent_runners_run_the_agent_of_a_lost_turn_once(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()
    agent = RecordingAgent()
    runners = [runner_of(running_turn, agent) for _ in range(4)]

    handles = await asyncio.gather(*(runner.resume(running_turn.owner, running_turn.id) for runner in runners * 2))
    results = [
        await runner.wait(running_turn.owner, handle)
        for runner, handle in zip(runners * 2, handles, strict=True)
        if handle
    ]

    assert (len(agent.runs), [result.turn.status for result in results]) == (1, ["completed"])


async def test_former_attempt_answers_with_what_another_one_did_and_asks_for_no_title(
    running_turn: RunningTurn,
) -> None:
    owner, agent = running_turn.owner, HeldAgent()
    limits = TurnLimits(replace(LIMITS, attempts=3), timedelta(minutes=1), 12)
    profiles = profiles_of(agent=agent, titles="model")
    runner = TurnRunner(running_turn.dispatchers[0], LocalEventBus(), profiles, limits)
    handle = await runner.start(owner, NewMessage("Hello"))
    await running_turn.dispatchers[0].call(owner, renew_turn, handle.turn_id, PAST)
    started = await running_turn.dispatchers[1].call(owner, resume_turn, handle.turn_id, profiles, limits.acceptance)
    assert started
    outcome = TurnOutcome("completed", SPENT, "Done elsewhere.", attempt=2)
    await running_turn.dispatchers[1].call(owner, finish_turn, handle.turn_id, outcome)
    agent.gate.set()
    result = await runner.wait(owner, handle)
    await runner.drain()

    assert result.message
    assert (result.message.content, result.turn.attempt) == ("Done elsewhere.", 2)
    assert len(agent.runs) == 1
