"""A call that is announced is on record before it is made; made or not, it bricks nothing."""

import asyncio
from time import perf_counter

import msgspec
import pytest
from msgspec import Raw

from latchkey.application.access import requires
from latchkey.application.artifacts import save_artifact
from latchkey.application.conversations import list_messages
from latchkey.application.tasks import complete_task
from latchkey.application.tool_calls import ToolOutcome
from latchkey.application.turns.finish import get_turn_result
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.credentials import ALL_GRANTS, Grant
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.task import TaskId
from latchkey.domain.tool_call import ANNOUNCE_AFTER_S, ToolCall
from tests.contract.database.course import MILK, Course, a_request
from tests.polling import wait_until
from tests.turns import started_turn


async def only_call(course: Course) -> ToolCall:
    (call,) = (await course.look()).tool_calls
    return call


async def test_an_announced_call_is_on_record_without_a_result(course: Course) -> None:
    await course.announce("call-1")

    call = await only_call(course)
    assert (call.name, bytes(call.arguments), bytes(call.result)) == ("add_task", MILK, b"null")
    assert (call.is_error, call.has_result) == (True, False)
    started = (await course.events())[1]
    assert msgspec.json.decode(started.body) == {
        "id": str(call.id),
        "name": "add_task",
        "arguments": msgspec.json.decode(MILK),
    }


@pytest.mark.parametrize("on", [0, 1], ids=["here", "on another replica"])
async def test_the_call_gives_its_announcement_the_result(course: Course, on: int) -> None:
    """Under the id that it was announced with, as told to those who follow; and again if it is repeated."""
    await course.announce("call-1")
    announced = await only_call(course)
    outcome = await course.add(call_id="call-1", on=on)
    repeated = await course.add(call_id="call-1", on=1 - on)

    call = await only_call(course)
    assert (call.id, bytes(call.result), call.is_error) == (announced.id, outcome.json, False)
    assert repeated.json == outcome.json
    assert await course.names() == ["turn.started", "tool_call.started", "tool_call.completed"]
    assert [msgspec.json.decode(event.body)["id"] for event in (await course.events())[1:]] == [str(call.id)] * 2
    assert await course.titles() == ["Milk"]


async def test_a_call_that_fails_settles_its_announcement_too(course: Course) -> None:
    await course.announce("call-1")
    outcome = await course.execute(complete_task, TaskId(course.id), call_id="call-1")

    call = await only_call(course)
    assert (bytes(call.result), call.is_error, call.has_result) == (outcome.json, True, True)
    assert await course.names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_the_artifact_of_an_announced_call_is_told_of_once_it_is_saved(course: Course) -> None:
    course.accepted = await started_turn(course.apps[0], course.owner, grants=list(ALL_GRANTS))
    request = msgspec.structs.replace(a_request("call-1"), name="save_artifact")
    await course.tell("", 0, request)
    assert (await course.look()).artifacts == []

    saved = await course.execute(save_artifact, "Plan", "# Plan", call_id="call-1")

    assert (await course.look()).artifacts == [msgspec.json.decode(saved.json, type=ArtifactReference)]
    assert (await course.names())[-1] == "artifact.created"


async def test_a_call_announced_again_is_one(course: Course) -> None:
    """At once, on two replicas, or after it has its result."""
    await asyncio.gather(*(course.announce("call-1", on=n % 2) for n in range(6)))
    await course.add(call_id="call-1")
    with_expiry = await only_call(course)
    await course.announce("call-1")

    assert await only_call(course) == with_expiry
    assert await course.names() == ["turn.started", "tool_call.started", "tool_call.completed"]


@pytest.mark.parametrize("text", ["", "Let me see. "], ids=["alone", "with text"])
async def test_announced_call_runs_use_case_once(course: Course, text: str) -> None:
    """The announcement is found before the use case runs, so that nothing is rolled back and run again."""
    runs = 0

    @requires(Grant.TASKS_WRITE)
    async def count_run(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        return runs

    await course.tell(text, 0, a_request("call-1"))
    outcome = await course.execute(count_run, call_id="call-1")

    assert (runs, outcome.content) == (1, 1)
    assert (await only_call(course)).result == Raw(outcome.json)
    assert (await course.names())[-2:] == ["tool_call.started", "tool_call.completed"]


async def test_call_announced_while_it_runs_runs_use_case_once(course: Course, shared_database_url: str) -> None:
    """A slow call looks for its announcement before it is recorded.

    PostgreSQL commits the announcement while the call runs; SQLite has one writer, so it commits the call first.
    """
    runs, started = 0, perf_counter()

    @requires(Grant.TASKS_WRITE)
    async def run_slowly(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1

        async def is_slow() -> bool:
            is_committed = announcement.done() or shared_database_url.startswith("sqlite")
            return is_committed and perf_counter() > started + ANNOUNCE_AFTER_S

        announcement = asyncio.create_task(course.announce("call-1", on=1))
        announcements.append(announcement)
        await wait_until(is_slow)
        return runs

    announcements: list[asyncio.Task[None]] = []
    outcome = await course.execute(run_slowly, call_id="call-1")
    await asyncio.gather(*announcements)

    assert (runs, outcome.content) == (1, 1)
    assert (await only_call(course)).result == Raw(outcome.json)
    assert await course.names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_slow_call_concurrent_text_runs_use_case_once(course: Course, shared_database_url: str) -> None:
    """A slow call reads the turn's state again under lock, so its events follow text that was written meanwhile."""
    runs, started = 0, perf_counter()

    @requires(Grant.TASKS_WRITE)
    async def run_slowly(_: UnitOfWork) -> int:
        nonlocal runs
        runs += 1

        async def is_slow() -> bool:
            is_committed = text.done() or shared_database_url.startswith("sqlite")
            return is_committed and perf_counter() > started + ANNOUNCE_AFTER_S

        text = asyncio.create_task(course.tell("Meanwhile", on=1))
        writes.append(text)
        await wait_until(is_slow)
        return runs

    writes: list[asyncio.Task[None]] = []
    await course.execute(run_slowly, call_id="call-1")
    await asyncio.gather(*writes)

    assert runs == 1
    assert sorted(await course.names()) == ["message.delta", "tool_call.completed", "tool_call.started", "turn.started"]


@pytest.mark.parametrize("_round", range(6))
async def test_an_announcement_and_its_call_may_come_in_any_order(course: Course, _round: int) -> None:
    """At once, on two replicas, several times each: one effect, one row, one beginning and one end."""
    outcomes = await asyncio.gather(
        *(
            course.add(call_id="call-1", on=n % 2) if (n + _round) % 3 else course.announce("call-1", on=n % 2)
            for n in range(9)
        )
    )

    (answer,) = {outcome.json for outcome in outcomes if isinstance(outcome, ToolOutcome)}
    assert bytes((await only_call(course)).result) == answer
    assert await course.titles() == ["Milk"]
    assert await course.names() == ["turn.started", "tool_call.started", "tool_call.completed"]


async def test_announcements_and_other_calls_do_not_stand_in_each_others_way(course: Course) -> None:
    """Many of both at once, on two replicas; nothing has to be parted."""

    async def announce_and_call(number: int) -> None:
        await course.announce(f"call-{number}", on=number % 2)
        await course.add(f"{number}", f"call-{number}", on=1 - number % 2)

    await asyncio.gather(
        *(announce_and_call(number) for number in range(10)),
        *(course.add(f"{number}", f"call-{number}", on=number % 2) for number in range(10, 20)),
    )

    assert sorted(await course.titles(), key=int) == [f"{number}" for number in range(20)]
    names = await course.names()
    assert names.count("tool_call.started") == names.count("tool_call.completed") == 20


@pytest.mark.parametrize("end", ["lapse", "cancel", "finish"])
async def test_a_turn_that_broke_off_in_a_call_bricks_nothing(course: Course, end: str) -> None:
    """The call is shown without a result, to people and to the next turn's model, and the talk goes on."""
    where = course.accepted.turn.conversation_id
    await course.announce("call-1")
    await (course.finish("", "interrupted") if end == "finish" else getattr(course, end)())
    broken = (await course.look()).tool_calls
    assert [(call.has_result, bytes(call.result), call.is_error) for call in broken] == [(False, b"null", True)]
    ended = await course.apps[1].call(course.owner, get_turn_result, course.id)
    assert (ended.turn.tool_calls, ended.message) == (broken, None)

    await course.begin(where)
    (past,) = course.accepted.history
    assert (past.tool_calls, past.answer) == (broken, None)
    await course.finish("Here I am again.")
    messages = await course.apps[0].call(course.owner, list_messages, where, Window())
    assert [message.content for message in messages.items] == ["Go", "Go", "Here I am again."]


async def test_a_call_that_was_answered_before_its_turn_broke_keeps_its_result(course: Course) -> None:
    """Only the one that broke off has none."""
    where = course.accepted.turn.conversation_id
    await course.announce("call-1")
    answer = await course.add(call_id="call-1")
    await course.announce("call-2")
    await course.lapse()
    await course.begin(where)

    (past,) = course.accepted.history
    assert [call.result for call in past.tool_calls] == [Raw(answer.json), Raw(b"null")]


async def test_an_answer_comes_with_calls_that_never_had_a_result(course: Course) -> None:
    """A model may ask for a tool, be refused before it is called, and answer all the same."""
    await course.announce("call-1")
    ended = await course.finish("Never mind.")

    assert ended.message
    assert [call.has_result for call in ended.message.tool_calls] == [False]
    found = await course.apps[1].call(course.owner, get_turn_result, course.id)
    assert found == ended
