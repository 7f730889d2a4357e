"""Recovery: a turn whose process is gone goes on in another process, and its former attempt writes nothing."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from latchkey.application.tasks import add_task
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.log import list_withdrawing_events
from latchkey.application.turns.record import EventBatch, append_events, release_turn, renew_turn
from latchkey.application.turns.resume import past_steps, resume_turn
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Conflict, NotFound, Unauthenticated
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn import Usage
from tests.builders import LIMITS
from tests.contract.database.running_turn import SPENT, RunningTurn, a_request
from tests.turns import profiles_of

TWICE = replace(LIMITS, attempts=2)


async def resumed(turn: RunningTurn, on: int = 0) -> StartedTurn | None:
    return await turn.dispatchers[on].call(turn.owner, resume_turn, turn.id, profiles_of(), TWICE)


async def test_turn_goes_on_after_the_last_recorded_tool_call(running_turn: RunningTurn) -> None:
    """The text of the step that broke off is withdrawn, the effect of the tool call is kept and not repeated."""
    await running_turn.start()
    await running_turn.append_text("Adding. ")
    await running_turn.add("Milk", call_id="c1")
    await running_turn.append_text("Now I wi", offset=8)
    await running_turn.expire_lease()

    started = await resumed(running_turn, on=1)

    assert started
    assert (started.turn.attempt, started.turn.answer_length, started.message) == (2, 8, "Go")
    assert [(step.text, [call.name for call in step.tool_calls]) for step in started.steps] == [
        ("Adding. ", ["add_task"])
    ]
    assert started.history == []
    assert await running_turn.event_names() == [
        "turn.started",
        "message.delta",
        "tool_call.started",
        "tool_call.completed",
        "message.delta",
        "message.withdrawn",
        "turn.resumed",
    ]
    batch = EventBatch(8, "Added.", SPENT, attempt=2)
    await running_turn.dispatchers[1].call(running_turn.owner, append_events, running_turn.id, batch)
    outcome = TurnOutcome("completed", SPENT, "Adding. Added.", attempt=2)
    result = await running_turn.dispatchers[1].call(running_turn.owner, finish_turn, running_turn.id, outcome)
    assert result.message
    assert result.message.content == "Adding. Added."
    assert await running_turn.task_titles() == ["Milk"]


async def test_events_of_a_turn_with_withdrawn_text_are_listed_for_replays(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.append_text("Adding")
    call = running_turn.dispatchers[0].call

    assert await call(running_turn.owner, list_withdrawing_events, running_turn.id) == []
    await running_turn.expire_lease()
    assert await resumed(running_turn)
    events = await call(running_turn.owner, list_withdrawing_events, running_turn.id)
    assert [event.name for event in events] == await running_turn.event_names()
    with pytest.raises(NotFound):
        await call(Owner(UserId("u-2")), list_withdrawing_events, running_turn.id)


async def test_events_of_a_turn_without_withdrawn_text_are_not_listed_for_replays(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()
    assert await resumed(running_turn)

    assert await running_turn.dispatchers[0].call(running_turn.owner, list_withdrawing_events, running_turn.id) == []


async def test_former_attempt_writes_nothing(running_turn: RunningTurn) -> None:
    """Its process was stopped for longer than the lease, and goes on."""
    await running_turn.start()
    await running_turn.append_text("One")
    await running_turn.expire_lease()
    assert await resumed(running_turn, on=1)
    events = await running_turn.event_names()

    with pytest.raises(Conflict):
        await running_turn.append_text("two", offset=3)
    with pytest.raises(Conflict):
        await running_turn.append_text("two")
    with pytest.raises(Conflict):
        await running_turn.finish()
    with pytest.raises(Conflict):
        await running_turn.renew(timedelta(minutes=1))
    with pytest.raises(Unauthenticated):
        await running_turn.add("Late", call_id="c9")
    assert await running_turn.event_names() == events
    assert await running_turn.task_titles() == []


async def test_token_of_a_released_attempt_is_revoked(running_turn: RunningTurn) -> None:
    """It would not have expired yet, and the next attempt runs."""
    await running_turn.start()
    await running_turn.dispatchers[0].call(running_turn.owner, release_turn, running_turn.id, 1)
    assert await resumed(running_turn, on=1)

    with pytest.raises(Unauthenticated):
        await running_turn.add("Late", call_id="c9")
    assert await running_turn.task_titles() == []


async def test_call_without_result_is_closed_and_not_made_again(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.append_text("Adding.", request=a_request("c1"))
    await running_turn.expire_lease()

    started = await resumed(running_turn)

    assert started
    (step,) = started.steps
    (call,) = step.tool_calls
    assert (call.is_error, msgspec.json.decode(call.result)["code"]) == (True, "no-result")
    assert b"Nothing was done" in bytes(call.result)
    assert (await running_turn.event_names())[-2:] == ["tool_call.completed", "turn.resumed"]
    assert (await running_turn.read()).tool_calls[0].is_error


async def test_concurrent_recoveries_start_one_attempt(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()

    attempts = await asyncio.gather(*(resumed(running_turn, on=number % 2) for number in range(6)))

    assert len([started for started in attempts if started]) == 1
    assert await running_turn.event_names() == ["turn.started", "turn.resumed"]


async def test_turn_after_its_last_attempt_is_interrupted(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()
    assert await resumed(running_turn)
    past = timedelta(seconds=-1)
    await running_turn.dispatchers[0].call(running_turn.owner, renew_turn, running_turn.id, past, 2)

    assert await resumed(running_turn) is None
    turn = await running_turn.read()
    assert (turn.status, turn.attempt) == ("interrupted", 2)


async def test_turn_that_runs_or_has_ended_is_not_resumed(running_turn: RunningTurn) -> None:
    await running_turn.start()
    assert await resumed(running_turn) is None
    await running_turn.finish()
    assert await resumed(running_turn) is None


async def test_next_attempt_has_a_token_with_the_same_grants(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.expire_lease()
    started = await resumed(running_turn)

    assert started
    assert started.scope.grants == running_turn.started.scope.grants
    invocation = ToolInvocation("add_task", b'{"title":"Milk"}', "c2")
    executor = ToolCallExecutor(running_turn.dispatchers[1])
    outcome = await executor.execute(started.secret, invocation, add_task, NewTask("Milk"))
    assert not outcome.is_error
    assert await running_turn.task_titles() == ["Milk"]


async def test_steps_after_two_interruptions_leave_out_all_withdrawn_text(running_turn: RunningTurn) -> None:
    await running_turn.start()
    await running_turn.append_text("Lost one. ")
    await running_turn.expire_lease()
    first = await resumed(running_turn)
    assert first
    assert first.steps == []
    batch = EventBatch(0, "Kept. ", Usage(), a_request("c1"), attempt=2)
    await running_turn.dispatchers[0].call(running_turn.owner, append_events, running_turn.id, batch)

    calls = {call.id: call for call in (await running_turn.read()).tool_calls}
    steps = past_steps(await running_turn.events(), calls)

    assert [step.text for step in steps] == ["Kept. "]
