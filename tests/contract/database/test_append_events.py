"""Appending events: written once, whatever the writer learns of it, and only while the turn runs."""

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
from tests.contract.database.cancellation import is_cancelled_at
from tests.contract.database.running_turn import SPENT, RunningTurn, a_request


async def test_append_events_retry_after_lost_confirmation_is_offset_conflict(running_turn: RunningTurn) -> None:
    """A retry after a lost confirmation learns the recorded length; the announced call is not duplicated."""
    await running_turn.append_text("Let me see. 🛒", 0, a_request("call-1"))
    before = await running_turn.events()

    with pytest.raises(OffsetConflict) as refused:
        await running_turn.append_text("Let me see. 🛒 And", 0, a_request("call-1"))
    assert refused.value.answer_length == len("Let me see. 🛒")
    await running_turn.append_text("", len("Let me see. 🛒"), a_request("call-1"), on=1)

    assert await running_turn.events() == before
    assert len((await running_turn.read()).tool_calls) == 1


async def test_append_events_beyond_recorded_length_is_offset_conflict(running_turn: RunningTurn) -> None:
    with pytest.raises(OffsetConflict) as refused:
        await running_turn.append_text("the end", 5)

    assert refused.value.answer_length == 0
    assert await running_turn.event_names() == ["turn.started"]


async def test_append_events_concurrent_same_offset_only_one_succeeds(running_turn: RunningTurn) -> None:
    outcomes = await asyncio.gather(
        *(running_turn.append_text("Once", on=n % 2) for n in range(6)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["OffsetConflict"] * 5
    assert await running_turn.text() == "Once"


async def test_usage_of_running_turn_is_stored(running_turn: RunningTurn) -> None:
    await running_turn.append_text("Said")
    assert (await running_turn.read()).usage == SPENT


async def test_model_of_running_turn_is_stored_until_another_answers(running_turn: RunningTurn) -> None:
    for offset, model, stored in [(0, None, None), (1, "first", "first"), (2, None, "first"), (3, "second", "second")]:
        batch = EventBatch(offset, "x", SPENT, model=model)
        await running_turn.dispatchers[offset % 2].call(running_turn.owner, append_events, running_turn.id, batch)
        assert (await running_turn.read()).model == stored


@pytest.mark.parametrize("end", ["finish", "cancel", "expire_lease"])
@pytest.mark.parametrize("text", ["text", ""], ids=["text", "a call alone"])
async def test_append_events_to_finished_turn_is_conflict(running_turn: RunningTurn, end: str, text: str) -> None:
    """On every replica, also if the lease has expired and the turn is not stored as interrupted yet."""
    await running_turn.append_text("Said")
    await getattr(running_turn, end)()

    for on in (0, 1):
        with pytest.raises(Conflict, match="has ended, or its lease has expired") as refused:
            await running_turn.append_text(text, len("Said"), a_request("call-1"), on)
        assert not isinstance(refused.value, OffsetConflict)
        with pytest.raises(Conflict):
            await running_turn.renew(timedelta(minutes=1), on)
    assert (await running_turn.read()).tool_calls == []
    assert (await running_turn.event_names())[1] == "message.delta"
    assert len(await running_turn.event_names()) == 3 + (end == "finish")


async def test_append_events_isolation_between_users(running_turn: RunningTurn, you: Owner) -> None:
    with pytest.raises(NotFound, match="There is no such turn"):
        await running_turn.dispatchers[0].call(
            you, append_events, running_turn.id, EventBatch(0, "Taken over", Usage())
        )
    assert await running_turn.event_names() == ["turn.started"]


async def test_finish_appends_exactly_the_unwritten_text(running_turn: RunningTurn) -> None:
    await running_turn.append_text("Do")
    ended = await running_turn.finish("Done. 🎉")

    assert ended.message
    assert ended.message.content == await running_turn.text() == "Done. 🎉"
    assert await running_turn.event_names() == ["turn.started", "message.delta", "message.delta", "turn.completed"]


@pytest.mark.parametrize("text", ["", "Done."], ids=["no text", "all of it text"])
async def test_finish_without_unwritten_text_appends_no_delta(running_turn: RunningTurn, text: str) -> None:
    if text:
        await running_turn.append_text(text)
    await running_turn.finish(text, "completed" if text else "interrupted")

    assert await running_turn.text() == text
    assert (await running_turn.event_names()).count("message.delta") == bool(text)


async def test_append_events_cancelled_at_any_point_can_be_retried(running_turn: RunningTurn) -> None:
    """The writer does not know whether the cancelled attempt was committed."""
    for length in count():
        request = a_request(f"call-{length}")
        was_cancelled = await is_cancelled_at(length + 1, running_turn.append_text("x", length, request))
        try:
            await running_turn.append_text("x", length, request)
        except OffsetConflict as conflict:
            await running_turn.append_text("x"[conflict.answer_length - length :], conflict.answer_length, request)
        if not was_cancelled:
            break

    assert length > 2
    assert await running_turn.text() == "x" * (length + 1)
    assert await running_turn.event_names() == ["turn.started", *["message.delta", "tool_call.started"] * (length + 1)]


class Step(NamedTuple):
    """A writer collects text, may request a tool, and may lose the confirmation of a write."""

    text: str
    requests_tool: bool
    is_confirmed: bool
    on: int


STEPS = st.lists(st.builds(Step, st.text("aé🛒\n", max_size=4), st.booleans(), st.booleans(), st.integers(0, 1)))


class Writer:
    """Retries until the text is written, like `TurnEventWriter`."""

    def __init__(self, running_turn: RunningTurn) -> None:
        self.running_turn = running_turn
        self.text = ""
        self.written = 0
        self.requests = 0

    async def apply(self, step: Step) -> None:
        self.text += step.text
        self.requests += step.requests_tool
        if step.text or step.requests_tool:
            await self.write(step)
            if not step.is_confirmed:
                await self.write(step)
            self.written = len(self.text)

    async def write(self, step: Step) -> None:
        request = a_request(f"call-{self.requests}") if step.requests_tool else None
        written = self.written
        try:
            await self.running_turn.append_text(self.text[written:], written, request, step.on)
        except OffsetConflict as conflict:
            await self.running_turn.append_text(
                self.text[conflict.answer_length :], conflict.answer_length, request, step.on
            )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, unwritten=st.text("aé🛒", max_size=3))
async def test_deltas_joined_are_answer_after_retries(
    running_turn: RunningTurn, steps: list[Step], unwritten: str
) -> None:
    await running_turn.start()
    writer = Writer(running_turn)
    for step in steps:
        await writer.apply(step)
    ended = await running_turn.finish(writer.text + unwritten)

    assert ended.message
    assert ended.message.content == await running_turn.text() == writer.text + unwritten
    names = await running_turn.event_names()
    assert names.count("tool_call.started") == len(ended.turn.tool_calls) == writer.requests
    assert [event.seq for event in await running_turn.events()] == list(range(1, len(names) + 1))
