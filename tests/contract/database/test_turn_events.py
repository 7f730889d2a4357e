"""The events of a turn are numbered from 1 without gaps and stay in order under concurrent writes."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import msgspec
import pytest

from latchkey.application.artifacts import save_artifact
from latchkey.application.deletion import delete_conversation
from latchkey.application.tasks import complete_task
from latchkey.application.turns.read import EVENT_PAGE_BYTES, PAGE_EVENTS, read_events
from latchkey.domain.credentials import BUILT_IN_GRANTS, Owner
from latchkey.domain.errors import Conflict, NotFound, OffsetConflict, Unauthenticated
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import TaskId
from latchkey.domain.tool_call import ToolOutcome
from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent
from tests.contract.database.cancellation import is_cancelled_at
from tests.contract.database.running_turn import RunningTurn, a_request
from tests.turns import started_turn


def body(event: TurnEvent) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(event.body)
    return data


async def test_turn_events_are_in_order(running_turn: RunningTurn) -> None:
    """A failed call has a completed event too, with its error."""
    await running_turn.append_text("Let me ")
    added = await running_turn.add()
    await running_turn.execute(complete_task, TaskId(running_turn.id))
    await running_turn.append_text("see.", len("Let me "))
    ended = await running_turn.finish("Let me see.")

    events = await running_turn.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events] == [
        "turn.started",
        "message.delta",
        *("tool_call.started", "tool_call.completed") * 2,
        "message.delta",
        "turn.completed",
    ]
    calls = ended.turn.tool_calls
    assert [body(event)["id"] for event in events[2:6]] == [str(call.id) for call in calls for _ in range(2)]
    assert body(events[0]) == {"conversation_id": str(ended.turn.conversation_id), "agent": "rehearsal"}
    assert body(events[3])["result"] == msgspec.json.decode(added.json)
    assert (body(events[5])["is_error"], body(events[5])["result"]["code"]) == (True, "not-found")
    assert ended.message
    assert body(events[7])["message_id"] == str(ended.message.id)


async def test_artifact_event_follows_tool_call_event(running_turn: RunningTurn) -> None:
    running_turn.started = await started_turn(
        running_turn.dispatchers[0], running_turn.owner, grants=list(BUILT_IN_GRANTS)
    )
    await running_turn.execute(save_artifact, "Plan", "# Plan")

    events = await running_turn.events()
    assert [event.name for event in events[1:]] == ["tool_call.started", "tool_call.completed", "artifact.created"]
    assert body(events[3]) == body(events[2])["result"]


@pytest.mark.parametrize("_round", range(4))
async def test_concurrent_writers_leave_no_gap_in_event_numbers(running_turn: RunningTurn, _round: int) -> None:
    """Text and tool calls, announced or not, on two replicas, while the turn ends.

    Each call with a result has one completed event, after its started event; late writes have no event.
    """
    has_written = asyncio.Event()

    async def write_text() -> None:
        for length in count():
            await running_turn.append_text("x", length)
            if length == 3:
                has_written.set()

    async def call(number: int) -> ToolOutcome:
        if number % 2:
            await announce(running_turn, f"call-{number}", on=number // 2 % 2)
        return await running_turn.add(call_id=f"call-{number}", on=number % 2)

    async def finish() -> None:
        await has_written.wait()
        await running_turn.finish("x" * 100)

    writing, finishing, *answers = await asyncio.gather(
        write_text(), finish(), *(call(number) for number in range(12)), return_exceptions=True
    )

    assert (type(writing), finishing) == (Conflict, None)
    assert {type(answer) for answer in answers} <= {ToolOutcome, Unauthenticated, Conflict}
    answered = [answer for answer in answers if isinstance(answer, ToolOutcome)]
    assert not any(answer.is_error for answer in answered)
    assert len(await running_turn.task_titles()) == len(answered)
    await assert_events_are_consistent(running_turn, completed=len(answered))
    assert await running_turn.text() == "x" * 100


async def announce(running_turn: RunningTurn, call_id: str, on: int) -> None:
    """While others write too."""
    length = 0
    while True:
        try:
            await running_turn.append_text("", length, a_request(call_id), on)
        except OffsetConflict as earlier:
            length = earlier.answer_length
        else:
            return


async def assert_events_are_consistent(running_turn: RunningTurn, completed: int) -> None:
    events = await running_turn.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].name == "turn.started"
    assert not any(event.is_last for event in events[:-1])
    seen: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.name.startswith("tool_call"):
            id = body(event)["id"]
            assert event.name == "tool_call.started" or seen["tool_call.started", id] == 1
            seen[event.name, id] += 1
    assert set(seen.values()) <= {1}
    assert sum(name == "tool_call.completed" for name, _ in seen) == completed


async def test_rollback_leaves_no_gap_in_event_numbers(units: UnitsOfWork, running_turn: RunningTurn) -> None:
    async with units.open(running_turn.owner, "write") as uow:
        seq = await uow.turns.count_tool_call(running_turn.id, uow.now, 3, 100)
        await uow.turn_events.add(TurnEvent.of(running_turn.id, seq, MessageDeltaEvent("Rolled back")))
    await running_turn.append_text("Said")

    assert [(event.seq, event.name) for event in await running_turn.events()] == [
        (1, "turn.started"),
        (2, "message.delta"),
    ]


@pytest.mark.parametrize("announced", [False, True], ids=["new", "announced"])
async def test_call_cancelled_at_any_point_is_atomic(running_turn: RunningTurn, *, announced: bool) -> None:
    """Effect, record and events happen together; a retry with the same id leaves one call."""
    for wait in count(1):
        call_id = f"call-{wait}"
        if announced:
            await running_turn.announce(call_id)
        broke_off = await is_cancelled_at(wait, _add(running_turn, call_id))
        effects = (await running_turn.task_titles()).count(call_id)
        assert effects == await _recorded(running_turn, call_id) == await _told(running_turn, call_id)
        assert effects == 1 or broke_off
        await _add(running_turn, call_id)
        assert (await running_turn.task_titles()).count(call_id) == await _told(running_turn, call_id) == 1
        if not broke_off:
            break
    assert wait > 2
    await assert_events_are_consistent(running_turn, completed=wait)


async def _add(running_turn: RunningTurn, title: str) -> None:
    await running_turn.add(title, call_id=title)


async def _recorded(running_turn: RunningTurn, title: str) -> int:
    """Count the calls whose result is that task."""
    return sum(b'"%s"' % title.encode() in bytes(call.result) for call in (await running_turn.read()).tool_calls)


async def _told(running_turn: RunningTurn, title: str) -> int:
    completed = [event for event in await running_turn.events() if event.name == "tool_call.completed"]
    return sum(body(event)["result"]["title"] == title for event in completed)


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_list_after_leaves_out_earlier_events(units: UnitsOfWork, running_turn: RunningTurn, limit: int) -> None:
    for length in range(6):
        await running_turn.append_text("x", length)
    everything = await running_turn.events()

    async with units.open(running_turn.owner, "read") as uow:
        for after in range(9):
            page = await uow.turn_events.list_after(running_turn.id, after, limit, EVENT_PAGE_BYTES)
            assert page == everything[after:][:limit]


async def test_event_pagination_by_count(running_turn: RunningTurn) -> None:
    """The log is over after the final event, not before. A full page may be followed by `turn.undone`."""
    number = 2 * PAGE_EVENTS - 2
    for length in range(number):
        await running_turn.append_text("x", length)
    await running_turn.finish("x" * number)

    logs = [
        await running_turn.dispatchers[1].call(running_turn.owner, read_events, running_turn.id, after * PAGE_EVENTS)
        for after in range(3)
    ]
    assert [(len(log.events), log.is_over) for log in logs] == [
        (PAGE_EVENTS, False),
        (PAGE_EVENTS, False),
        (0, True),
    ]


async def test_event_pagination_by_bytes(running_turn: RunningTurn) -> None:
    """An event of any length is returned; a page ends once it has this many bytes; nothing is left out."""
    lengths = [10, EVENT_PAGE_BYTES, 3 * EVENT_PAGE_BYTES, 10, 10]
    for nth, length in enumerate(lengths):
        await running_turn.append_text("x" * length, sum(lengths[:nth]))
    read, times = list[TurnEvent](), 0
    while True:
        log = await running_turn.dispatchers[1].call(running_turn.owner, read_events, running_turn.id, len(read))
        assert sum(len(event.body) for event in log.events[:-1]) < EVENT_PAGE_BYTES
        read += log.events
        times += 1
        if not log.has_more:
            break

    assert [len(body(event)["text"]) for event in read[1:]] == lengths
    assert times == 3


async def test_event_page_of_running_turn_is_not_over(running_turn: RunningTurn) -> None:
    log = await running_turn.dispatchers[1].call(running_turn.owner, read_events, running_turn.id, 1)
    assert (log.events, log.is_over) == ([], False)


async def test_turn_events_isolation_between_users(units: UnitsOfWork, running_turn: RunningTurn, you: Owner) -> None:
    """A user who knows the id of another user's turn can neither read nor append its events."""
    with pytest.raises(NotFound, match="There is no such turn"):
        await running_turn.dispatchers[0].call(you, read_events, running_turn.id, 0)
    async with units.open(you, "write") as uow:
        assert await uow.turn_events.list_after(running_turn.id, 0, 10, EVENT_PAGE_BYTES) == []
        with pytest.raises(Conflict):
            await uow.turns.count_tool_call(running_turn.id, uow.now, 1, 100)
    assert await running_turn.event_names() == ["turn.started"]


async def test_turn_events_isolation_between_turns(running_turn: RunningTurn) -> None:
    await running_turn.append_text("First")
    first = await running_turn.events()
    await running_turn.start()
    await running_turn.append_text("Second")

    assert await running_turn.text() == "Second"
    assert not set(first) & set(await running_turn.events())


async def test_deleted_conversation_takes_turn_events(units: UnitsOfWork, running_turn: RunningTurn) -> None:
    await running_turn.append_text("Said")
    await running_turn.dispatchers[0].call(
        running_turn.owner, delete_conversation, running_turn.started.turn.conversation_id
    )

    with pytest.raises(NotFound):
        await running_turn.dispatchers[0].call(running_turn.owner, read_events, running_turn.id, 0)
    async with units.open(running_turn.owner, "read") as uow:
        assert await uow.turn_events.list_after(running_turn.id, 0, 10, EVENT_PAGE_BYTES) == []
