"""What a turn tells is written once, whatever its writer hears of it, and only while the turn is theirs to write."""

import asyncio
from datetime import timedelta
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latchkey.application.turns.record import EventBatch, append_events
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, NotFound, OffsetConflict
from latchkey.domain.turn import Usage
from tests.contract.database.course import SPENT, Course, a_request
from tests.contract.database.interruption import is_cancelled_at


async def test_what_was_written_already_is_not_written_twice(course: Course) -> None:
    """Who tries again, never having heard of it, is told how far it came; the call announced with it stays one."""
    await course.tell("Let me see. 🛒", 0, a_request("call-1"))
    before = await course.events()

    with pytest.raises(OffsetConflict) as refused:
        await course.tell("Let me see. 🛒 And", 0, a_request("call-1"))
    assert refused.value.answer_length == len("Let me see. 🛒")
    await course.tell("", len("Let me see. 🛒"), a_request("call-1"), on=1)

    assert await course.events() == before
    assert len((await course.look()).tool_calls) == 1


async def test_text_that_leaves_something_out_is_refused(course: Course) -> None:
    with pytest.raises(OffsetConflict) as refused:
        await course.tell("the end", 5)

    assert refused.value.answer_length == 0
    assert await course.names() == ["turn.started"]


async def test_of_two_who_tell_the_same_one_does(course: Course) -> None:
    outcomes = await asyncio.gather(*(course.tell("Once", on=n % 2) for n in range(6)), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["OffsetConflict"] * 5
    assert await course.text() == "Once"


async def test_what_a_turn_has_used_is_known_while_it_runs(course: Course) -> None:
    await course.tell("Said")
    assert (await course.look()).usage == SPENT


@pytest.mark.parametrize("end", ["finish", "cancel", "lapse"])
@pytest.mark.parametrize("text", ["text", ""], ids=["text", "a call alone"])
async def test_a_turn_that_has_ended_is_not_added_to(course: Course, end: str, text: str) -> None:
    """Nor one whose lease has passed, though nobody has said so: by nobody, on no replica."""
    await course.tell("Said")
    await getattr(course, end)()

    for on in (0, 1):
        with pytest.raises(Conflict, match="has ended, or its lease has passed") as refused:
            await course.tell(text, len("Said"), a_request("call-1"), on)
        assert not isinstance(refused.value, OffsetConflict)
        with pytest.raises(Conflict):
            await course.renew(timedelta(minutes=1), on)
    assert (await course.look()).tool_calls == []
    assert (await course.names())[1] == "message.delta"
    assert len(await course.names()) == 3 + (end == "finish")


async def test_the_turn_of_another_is_not_told_of(course: Course, you: Owner) -> None:
    with pytest.raises(NotFound, match="There is no such turn"):
        await course.apps[0].call(you, append_events, course.id, EventBatch(0, "Mine now", Usage()))
    assert await course.names() == ["turn.started"]


async def test_the_end_brings_exactly_the_rest_of_the_text(course: Course) -> None:
    await course.tell("Do")
    ended = await course.finish("Done. 🎉")

    assert ended.message
    assert ended.message.content == await course.text() == "Done. 🎉"
    assert await course.names() == ["turn.started", "message.delta", "message.delta", "turn.completed"]


@pytest.mark.parametrize("told", ["", "Done."], ids=["nothing said", "all of it told"])
async def test_where_nothing_is_left_to_tell_the_end_tells_nothing(course: Course, told: str) -> None:
    if told:
        await course.tell(told)
    await course.finish(told, "completed" if told else "interrupted")

    assert await course.text() == told
    assert (await course.names()).count("message.delta") == bool(told)


async def test_a_telling_cancelled_anywhere_can_be_made_again(course: Course) -> None:
    """As a writer does who does not know whether the first attempt was committed."""
    for told in count():
        request = a_request(f"call-{told}")
        broke_off = await is_cancelled_at(told + 1, course.tell("x", told, request))
        try:
            await course.tell("x", told, request)
        except OffsetConflict as earlier:
            await course.tell("x"[earlier.answer_length - told :], earlier.answer_length, request)
        if not broke_off:
            break

    assert told > 2
    assert await course.text() == "x" * (told + 1)
    assert await course.names() == ["turn.started", *["message.delta", "tool_call.started"] * (told + 1)]


class Step(NamedTuple):
    """A writer gathers some text, may ask for a tool, and may not hear that it was written."""

    text: str
    asks: bool
    hears: bool
    on: int


STEPS = st.lists(st.builds(Step, st.text("aé🛒\n", max_size=4), st.booleans(), st.booleans(), st.integers(0, 1)))


class Writer:
    """One who tries until it is written, as the scribe of a turn does."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.text = ""
        self.written = 0
        self.asked = 0

    async def take(self, step: Step) -> None:
        self.text += step.text
        self.asked += step.asks
        if step.text or step.asks:
            await self.write(step)
            if not step.hears:
                await self.write(step)
            self.written = len(self.text)

    async def write(self, step: Step) -> None:
        request = a_request(f"call-{self.asked}") if step.asks else None
        written = self.written
        try:
            await self.course.tell(self.text[written:], written, request, step.on)
        except OffsetConflict as earlier:
            await self.course.tell(self.text[earlier.answer_length :], earlier.answer_length, request, step.on)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, unwritten=st.text("aé🛒", max_size=3))
async def test_the_deltas_joined_are_the_answer_whatever_was_cut_where(
    course: Course, steps: list[Step], unwritten: str
) -> None:
    await course.begin()
    writer = Writer(course)
    for step in steps:
        await writer.take(step)
    ended = await course.finish(writer.text + unwritten)

    assert ended.message
    assert ended.message.content == await course.text() == writer.text + unwritten
    names = await course.names()
    assert names.count("tool_call.started") == len(ended.turn.tool_calls) == writer.asked
    assert [event.seq for event in await course.events()] == list(range(1, len(names) + 1))
