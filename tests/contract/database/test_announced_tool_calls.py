"""Announced tool calls: recorded without a result before they run, and run once."""

import asyncio
from time import perf_counter

import msgspec
import pytest
from msgspec import Raw

from latchkey.application.access import requires
from latchkey.application.artifacts import save_artifact
from latchkey.application.conversations import list_messages
from latchkey.application.tasks import complete_task
from latchkey.application.turns.finish import get_turn_result
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.credentials import BUILT_IN_GRANTS, TASKS_WRITE
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.task import TaskId
from latchkey.domain.tool_call import ANNOUNCE_AFTER_S, ToolCall, ToolOutcome
from tests.contract.database.running_turn import MILK, RunningTurn, a_request
from tests.polling import wait_until
from tests.turns import started_turn


async def only_call(running_turn: RunningTurn) -> ToolCall:
    (call,) = (await running_turn.read()).tool_calls
    return call


async def test_announced_call_is_recorded_without_result(running_turn: RunningTurn) -> None:
    await running_turn.announce("call-1")

    call = await only_call(running_turn)
    assert (call.name, bytes(call.arguments), bytes(call.result)) == ("add_task", MILK, b"null")
    assert (call.is_error, call.has_result) == (True, False)
    started = (await running_turn.events())[1]
    assert msgspec.json.decode(started.body) == {
        "id": str(call.id),
        "name": "add_task",
        "arguments": msgspec.json.decode(MILK),
    }


@pytest.mark.parametrize("on", [0, 1], ids=["here", "on another replica"])
async def test_announced_call_gets_result_when_it_runs(running_turn: RunningTurn, on: int) -> None:
    """The result has the id of the announcement, in the events too; a duplicate call gets the same result."""
    await running_turn.announce("call-1")
    announced = await only_call(running_turn)
    outcome = await running_turn.add(call_id="call-1", on=on)
    repeated = await running_turn.add(call_id="call-1", on=1 - on)

    call = await only_call(running_turn)
    assert (call.id, bytes(call.result), call.is_error) == (announced.id, outcome.json, False)
    assert repeated.json == outcome.json
    assert await running_turn.event_names() == ["turn.started", "tool_call.started", "tool_call.completed"]
    assert [msgspec.json.decode(event.body)["id"] for event in (await running_turn.events())[1:]] == [str(call.id)] * 2
    assert await running_turn.task_titles() == ["Milk"]


async def test_announced_call_failure_sets_error_result(running_turn: RunningTurn) -> None:
    await running_turn.announce("call-1")
    outcome = await running_turn.execute(complete_task, TaskId(running_turn.id), call_id="call-1")

    call = await only_call(running_turn)
    assert (bytes(call.result), call.is_error, call.has_result) == (outcome.json, True, True)
    assert await running_turn.event_names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_announced_call_artifact_event_follows_save(running_turn: RunningTurn) -> None:
    running_turn.started = await started_turn(
        running_turn.dispatchers[0], running_turn.owner, grants=list(BUILT_IN_GRANTS)
    )
    request = msgspec.structs.replace(a_request("call-1"), name="save_artifact")
    await running_turn.append_text("", 0, request)
    assert (await running_turn.read()).artifacts == []

    saved = await running_turn.execute(save_artifact, "Plan", "# Plan", call_id="call-1")

    assert (await running_turn.read()).artifacts == [msgspec.json.decode(saved.json, type=ArtifactReference)]
    assert (await running_turn.event_names())[-1] == "artifact.created"


async def test_duplicate_announcements_are_one_call(running_turn: RunningTurn) -> None:
    """Concurrently on two replicas, and again after the call has its result."""
    await asyncio.gather(*(running_turn.announce("call-1", on=n % 2) for n in range(6)))
    await running_turn.add(call_id="call-1")
    with_expiry = await only_call(running_turn)
    await running_turn.announce("call-1")

    assert await only_call(running_turn) == with_expiry
    assert await running_turn.event_names() == ["turn.started", "tool_call.started", "tool_call.completed"]


@pytest.mark.parametrize("text", ["", "Let me see. "], ids=["alone", "with text"])
async def test_announced_call_runs_use_case_once(running_turn: RunningTurn, text: str) -> None:
    """The announcement is found before the use case runs, so that nothing is rolled back and run again."""
    runs = 0

    @requires(TASKS_WRITE)
    async def count_run(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        return runs

    await running_turn.append_text(text, 0, a_request("call-1"))
    outcome = await running_turn.execute(count_run, call_id="call-1")

    assert (runs, outcome.content) == (1, 1)
    assert (await only_call(running_turn)).result == Raw(outcome.json)
    assert (await running_turn.event_names())[-2:] == ["tool_call.started", "tool_call.completed"]


async def test_call_announced_while_it_runs_runs_use_case_once(
    running_turn: RunningTurn, shared_database_url: str
) -> None:
    """A slow call looks for its announcement before it is recorded.

    PostgreSQL commits the announcement while the call runs; SQLite has one writer, so it commits the call first.
    """
    runs = 0

    @requires(TASKS_WRITE)
    async def run_slowly(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        started = perf_counter()

        async def is_slow() -> bool:
            is_committed = announcement.done() or shared_database_url.startswith("sqlite")
            return is_committed and perf_counter() > started + ANNOUNCE_AFTER_S

        announcement = asyncio.create_task(running_turn.announce("call-1", on=1))
        announcements.append(announcement)
        await wait_until(is_slow)
        return runs

    announcements: list[asyncio.Task[None]] = []
    outcome = await running_turn.execute(run_slowly, call_id="call-1")
    await asyncio.gather(*announcements)

    assert (runs, outcome.content) == (1, 1)
    assert (await only_call(running_turn)).result == Raw(outcome.json)
    assert await running_turn.event_names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_slow_call_concurrent_text_runs_use_case_once(
    running_turn: RunningTurn, shared_database_url: str
) -> None:
    """A slow call reads the turn's state again under lock, so its events follow text that was written meanwhile."""
    runs = 0

    @requires(TASKS_WRITE)
    async def run_slowly(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        started = perf_counter()

        async def is_slow() -> bool:
            is_committed = text.done() or shared_database_url.startswith("sqlite")
            return is_committed and perf_counter() > started + ANNOUNCE_AFTER_S

        text = asyncio.create_task(running_turn.append_text("Meanwhile", on=1))
        writes.append(text)
        await wait_until(is_slow)
        return runs

    writes: list[asyncio.Task[None]] = []
    await running_turn.execute(run_slowly, call_id="call-1")
    await asyncio.gather(*writes)

    assert runs == 1
    assert sorted(await running_turn.event_names()) == [
        "message.delta",
        "tool_call.completed",
        "tool_call.started",
        "turn.started",
    ]


@pytest.mark.parametrize("_round", range(6))
async def test_concurrent_announcements_and_calls_have_one_effect(running_turn: RunningTurn, _round: int) -> None:
    """Several of each, concurrently on two replicas: one effect, one row, one start event and one end event."""
    outcomes = await asyncio.gather(
        *(
            running_turn.add(call_id="call-1", on=n % 2)
            if (n + _round) % 3
            else running_turn.announce("call-1", on=n % 2)
            for n in range(9)
        )
    )

    (answer,) = {outcome.json for outcome in outcomes if isinstance(outcome, ToolOutcome)}
    assert bytes((await only_call(running_turn)).result) == answer
    assert await running_turn.task_titles() == ["Milk"]
    assert await running_turn.event_names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_concurrent_announcements_of_different_calls_all_succeed(running_turn: RunningTurn) -> None:
    """Many of both, concurrently on two replicas, without a deadlock."""

    async def announce_and_call(number: int) -> None:
        await running_turn.announce(f"call-{number}", on=number % 2)
        await running_turn.add(f"{number}", f"call-{number}", on=1 - number % 2)

    await asyncio.gather(
        *(announce_and_call(number) for number in range(10)),
        *(running_turn.add(f"{number}", f"call-{number}", on=number % 2) for number in range(10, 20)),
    )

    assert sorted(await running_turn.task_titles(), key=int) == [f"{number}" for number in range(20)]
    names = await running_turn.event_names()
    assert names.count("tool_call.started") == names.count("tool_call.completed") == 20


@pytest.mark.parametrize("end", ["expire_lease", "cancel", "finish"])
async def test_turn_ended_during_call_does_not_block_conversation(running_turn: RunningTurn, end: str) -> None:
    """The call is shown without a result, to clients and to the model of the next turn."""
    where = running_turn.started.turn.conversation_id
    await running_turn.announce("call-1")
    await (running_turn.finish("", "interrupted") if end == "finish" else getattr(running_turn, end)())
    interrupted_calls = (await running_turn.read()).tool_calls
    assert [(call.has_result, bytes(call.result), call.is_error) for call in interrupted_calls] == [
        (False, b"null", True)
    ]
    ended = await running_turn.dispatchers[1].call(running_turn.owner, get_turn_result, running_turn.id)
    assert ended
    assert (ended.turn.tool_calls, ended.message) == (interrupted_calls, None)

    await running_turn.start(where)
    (past,) = running_turn.started.history
    assert (past.tool_calls, past.answer) == (interrupted_calls, None)
    await running_turn.finish("Here I am again.")
    messages = await running_turn.dispatchers[0].call(running_turn.owner, list_messages, where, Window())
    assert [message.content for message in messages.items] == ["Go", "Go", "Here I am again."]


async def test_completed_call_keeps_result_when_turn_expires(running_turn: RunningTurn) -> None:
    """Only the interrupted call has no result."""
    where = running_turn.started.turn.conversation_id
    await running_turn.announce("call-1")
    answer = await running_turn.add(call_id="call-1")
    await running_turn.announce("call-2")
    await running_turn.expire_lease()
    await running_turn.start(where)

    (past,) = running_turn.started.history
    assert [call.result for call in past.tool_calls] == [Raw(answer.json), Raw(b"null")]


async def test_completed_turn_lists_calls_without_result(running_turn: RunningTurn) -> None:
    """A model may request a tool, be refused before the call is made, and answer all the same."""
    await running_turn.announce("call-1")
    ended = await running_turn.finish("Never mind.")

    assert ended.message
    assert [call.has_result for call in ended.message.tool_calls] == [False]
    result = await running_turn.dispatchers[1].call(running_turn.owner, get_turn_result, running_turn.id)
    assert result == ended
