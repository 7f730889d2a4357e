"""The events of a turn are numbered from 1 without gaps and stay in order, whatever is written at the same time."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import msgspec
import pytest

from latchkey.application.artifacts import save_artifact
from latchkey.application.conversations import delete_conversation
from latchkey.application.tasks import complete_task
from latchkey.application.tool_calls import ToolOutcome
from latchkey.application.turns.read import PAGE_CHARACTERS, PAGE_EVENTS, read_events
from latchkey.domain.credentials import ALL_GRANTS, Owner
from latchkey.domain.errors import Conflict, NotFound, OffsetConflict, Unauthenticated
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import TaskId
from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent
from tests.contract.database.course import Course, a_request
from tests.contract.database.interruption import is_cancelled_at
from tests.turns import started_turn


def body(event: TurnEvent) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(event.body)
    return found


async def test_a_turn_is_told_in_the_order_in_which_it_happened(course: Course) -> None:
    """A call that failed was completed too, with its error."""
    await course.tell("Let me ")
    added = await course.add()
    await course.execute(complete_task, TaskId(course.id))
    await course.tell("see.", len("Let me "))
    ended = await course.finish("Let me see.")

    events = await course.events()
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


async def test_an_artifact_is_told_of_after_the_call_that_saved_it(course: Course) -> None:
    course.accepted = await started_turn(course.apps[0], course.owner, grants=list(ALL_GRANTS))
    await course.execute(save_artifact, "Plan", "# Plan")

    events = await course.events()
    assert [event.name for event in events[1:]] == ["tool_call.started", "tool_call.completed", "artifact.created"]
    assert body(events[3]) == body(events[2])["result"]


@pytest.mark.parametrize("_round", range(4))
async def test_everything_at_once_leaves_no_gap(course: Course, _round: int) -> None:
    """Text, calls that were announced or were not, on two replicas, and the end in the midst of it.

    Each call that was answered is told of once, after it was begun; what came too late is told nowhere.
    """
    talks_for_a_while = asyncio.Event()

    async def talk() -> None:
        for said in count():
            await course.tell("x", said)
            if said == 3:
                talks_for_a_while.set()

    async def call(number: int) -> ToolOutcome:
        if number % 2:
            await announce(course, f"call-{number}", on=number // 2 % 2)
        return await course.add(call_id=f"call-{number}", on=number % 2)

    async def finish() -> None:
        await talks_for_a_while.wait()
        await course.finish("x" * 100)

    talking, finishing, *answers = await asyncio.gather(
        talk(), finish(), *(call(number) for number in range(12)), return_exceptions=True
    )

    assert (type(talking), finishing) == (Conflict, None)
    assert {type(answer) for answer in answers} <= {ToolOutcome, Unauthenticated, Conflict}
    answered = [answer for answer in answers if isinstance(answer, ToolOutcome)]
    assert not any(answer.is_error for answer in answered)
    assert len(await course.titles()) == len(answered)
    await assert_sound(course, completed=len(answered))
    assert await course.text() == "x" * 100


async def announce(course: Course, call_id: str, on: int) -> None:
    """While others tell too."""
    told = 0
    while True:
        try:
            await course.tell("", told, a_request(call_id), on)
        except OffsetConflict as earlier:
            told = earlier.answer_length
        else:
            return


async def assert_sound(course: Course, completed: int) -> None:
    events = await course.events()
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


async def test_what_is_rolled_back_leaves_no_gap(units: UnitsOfWork, course: Course) -> None:
    async with units.open(course.owner, "write") as uow:
        seq = await uow.turns.count_tool_call(course.id, uow.now, 3, 100)
        await uow.turn_events.add(TurnEvent.of(course.id, seq, MessageDeltaEvent("Never said")))
    await course.tell("Said")

    assert [(event.seq, event.name) for event in await course.events()] == [(1, "turn.started"), (2, "message.delta")]


@pytest.mark.parametrize("announced", [False, True], ids=["new", "announced"])
async def test_a_call_cancelled_anywhere_has_happened_as_a_whole_or_not_at_all(
    course: Course, *, announced: bool
) -> None:
    """Its effect, its row in the ledger and its events. Made again under its id, it has happened once."""
    for wait in count(1):
        call_id = f"call-{wait}"
        if announced:
            await course.announce(call_id)
        broke_off = await is_cancelled_at(wait, _add(course, call_id))
        effects = (await course.titles()).count(call_id)
        assert effects == await _recorded(course, call_id) == await _told(course, call_id)
        assert effects == 1 or broke_off
        await _add(course, call_id)
        assert (await course.titles()).count(call_id) == await _told(course, call_id) == 1
        if not broke_off:
            break
    assert wait > 2
    await assert_sound(course, completed=wait)


async def _add(course: Course, title: str) -> None:
    await course.add(title, call_id=title)


async def _recorded(course: Course, title: str) -> int:
    """How many calls have a result with that task."""
    return sum(b'"%s"' % title.encode() in bytes(call.result) for call in (await course.look()).tool_calls)


async def _told(course: Course, title: str) -> int:
    completed = [event for event in await course.events() if event.name == "tool_call.completed"]
    return sum(body(event)["result"]["title"] == title for event in completed)


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_whatever_was_seen_already_is_left_out(units: UnitsOfWork, course: Course, limit: int) -> None:
    for said in range(6):
        await course.tell("x", said)
    everything = await course.events()

    async with units.open(course.owner, "read") as uow:
        for after in range(9):
            page = await uow.turn_events.list_after(course.id, after, limit, PAGE_CHARACTERS)
            assert page == everything[after:][:limit]


async def test_a_long_log_is_read_a_few_events_at_a_time(course: Course) -> None:
    """And is over after its last event, not before."""
    number = 2 * PAGE_EVENTS - 2
    for said in range(number):
        await course.tell("x", said)
    await course.finish("x" * number)

    logs = [await course.apps[1].call(course.owner, read_events, course.id, after * PAGE_EVENTS) for after in range(3)]
    assert [(len(log.events), log.is_over) for log in logs] == [
        (PAGE_EVENTS, False),
        (PAGE_EVENTS, True),
        (0, True),
    ]


async def test_long_events_are_read_fewer_at_a_time(course: Course) -> None:
    """However long one is, it is read; none begins after so many characters of others, and nothing is left out."""
    lengths = [10, PAGE_CHARACTERS, 3 * PAGE_CHARACTERS, 10, 10]
    for nth, length in enumerate(lengths):
        await course.tell("x" * length, sum(lengths[:nth]))
    read, times = list[TurnEvent](), 0
    while True:
        log = await course.apps[1].call(course.owner, read_events, course.id, len(read))
        assert sum(len(event.body) for event in log.events[:-1]) < PAGE_CHARACTERS
        read += log.events
        times += 1
        if not log.has_more:
            break

    assert [len(body(event)["text"]) for event in read[1:]] == lengths
    assert times == 3


async def test_the_log_of_a_running_turn_is_not_over(course: Course) -> None:
    log = await course.apps[1].call(course.owner, read_events, course.id, 1)
    assert (log.events, log.is_over) == ([], False)


async def test_the_events_of_another_are_not_there(units: UnitsOfWork, course: Course, you: Owner) -> None:
    """Neither to be read nor to be added to, by whoever knows the turn's id."""
    with pytest.raises(NotFound, match="There is no such turn"):
        await course.apps[0].call(you, read_events, course.id, 0)
    async with units.open(you, "write") as uow:
        assert await uow.turn_events.list_after(course.id, 0, 10, PAGE_CHARACTERS) == []
        with pytest.raises(Conflict):
            await uow.turns.count_tool_call(course.id, uow.now, 1, 100)
    assert await course.names() == ["turn.started"]


async def test_each_turn_has_its_own_events(course: Course) -> None:
    await course.tell("First")
    first = await course.events()
    await course.begin()
    await course.tell("Second")

    assert await course.text() == "Second"
    assert not set(first) & set(await course.events())


async def test_with_a_conversation_go_its_events(units: UnitsOfWork, course: Course) -> None:
    await course.tell("Said")
    await course.apps[0].call(course.owner, delete_conversation, course.accepted.turn.conversation_id)

    with pytest.raises(NotFound):
        await course.apps[0].call(course.owner, read_events, course.id, 0)
    async with units.open(course.owner, "read") as uow:
        assert await uow.turn_events.list_after(course.id, 0, 10, PAGE_CHARACTERS) == []
