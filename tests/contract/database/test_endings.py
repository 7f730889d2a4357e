"""A turn ends once: finished by whoever ran it, cancelled, or found lost; and nothing of it happens after that."""

import asyncio
from datetime import timedelta

import pytest

from latchkey.application.turns.expire import expire_turns
from latchkey.application.turns.finish import cancel_turn, get_turn_result
from latchkey.application.turns.read import get_turn, list_turns, read_events
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import (
    Conflict,
    NotFound,
    TooManyTurns,
    TurnCancelled,
    TurnInterrupted,
    TurnLost,
    Unauthenticated,
)
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.turn import TurnStatus
from tests.builders import LIMITS
from tests.contract.database.course import SPENT, Course


async def assert_is_dead(course: Course) -> None:
    """Nobody adds to it any more, on no replica: not by its token, and not whoever ran it."""
    before = await course.events()
    written = await course.text()
    await assert_refuses_everything(course, len(written))
    assert await course.events() == before


async def assert_refuses_everything(course: Course, told: int) -> None:
    for on in (0, 1):
        for attempt in (
            course.add(on=on),
            course.tell("And", told, on=on),
            course.renew(timedelta(minutes=1), on=on),
            course.finish("And this", on=on),
        ):
            with pytest.raises((Conflict, Unauthenticated)):
                await attempt
    assert await course.titles() == []


@pytest.mark.parametrize("on", [0, 1], ids=["here", "from another replica"])
async def test_a_cancelled_turn_is_over(course: Course, on: int) -> None:
    await course.tell("Let me")
    cancelled = await course.cancel(on)

    assert cancelled.status == "cancelled"
    assert cancelled.finished_at
    assert cancelled == await course.look()
    assert cancelled.usage == SPENT
    assert await course.names() == ["turn.started", "message.delta", "turn.cancelled"]
    assert (await course.events())[-1].body == b"{}"
    await assert_is_dead(course)


async def test_cancelling_again_changes_nothing(course: Course) -> None:
    first = await course.cancel()
    outcomes = await asyncio.gather(*(course.cancel(on=n % 2) for n in range(6)))

    assert outcomes == [first] * 6
    assert await course.names() == ["turn.started", "turn.cancelled"]


@pytest.mark.parametrize("status", ["completed", "interrupted"])
async def test_cancelling_a_turn_that_has_ended_leaves_it_as_it_was(course: Course, status: TurnStatus) -> None:
    ended = await course.finish("Done.", status)

    assert await course.cancel(on=1) == ended.turn
    assert (await course.look()).status == status
    assert (await course.names())[-1] == f"turn.{status}"


async def test_cancelling_a_lost_turn_finds_it_interrupted(course: Course) -> None:
    await course.lapse()

    assert (await course.cancel(on=1)).status == "interrupted"
    assert await course.names() == ["turn.started", "turn.interrupted"]


async def test_the_turn_of_another_is_not_cancelled(course: Course, you: Owner) -> None:
    with pytest.raises(NotFound, match="There is no such turn"):
        await course.apps[0].call(you, cancel_turn, course.id)

    assert (await course.look()).status == "running"
    assert not (await course.add()).is_error


async def test_whoever_waits_for_a_turn_is_told_why_there_is_no_answer(course: Course) -> None:
    where = course.accepted.turn.conversation_id
    await course.cancel()
    cancelled = (await course.apps[1].call(course.owner, get_turn_result, course.id)).failure
    await course.begin(where)
    await course.lapse()
    with pytest.raises(TurnLost):
        await course.apps[1].call(course.owner, get_turn_result, course.id)
    await course.look()
    interrupted = (await course.apps[1].call(course.owner, get_turn_result, course.id)).failure

    assert (type(cancelled), type(interrupted)) == (TurnCancelled, TurnInterrupted)
    assert interrupted
    assert interrupted.members == {"turn_id": course.id, "conversation_id": where}


async def test_a_running_turn_has_not_ended(course: Course) -> None:
    with pytest.raises(Conflict, match="still running"):
        await course.apps[0].call(course.owner, get_turn_result, course.id)


@pytest.mark.parametrize("_round", range(4))
async def test_under_many_calls_none_commits_after_the_cancel_has_answered(course: Course, _round: int) -> None:
    """Eight callers on two replicas: what was there when it answered is all that there will ever be."""
    calling = [asyncio.Event() for _ in range(8)]

    async def caller(number: int) -> int:
        for answered in range(1_000):
            try:
                await course.add(f"{number}", on=number % 2)
            except Unauthenticated:
                return answered
            calling[number].set()
        raise AssertionError

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    await asyncio.gather(*(event.wait() for event in calling))
    cancelled = await course.cancel(on=1)
    effects, events = len(await course.titles()), await course.events()
    answered = sum(await asyncio.gather(*callers))

    assert effects == len(await course.titles()) == answered == len(cancelled.tool_calls)
    assert events == await course.events()
    assert events[-1].name == "turn.cancelled"


@pytest.mark.parametrize("_round", range(4))
async def test_of_all_who_end_a_turn_at_once_one_does(course: Course, _round: int) -> None:
    """It is finished, cancelled and told of, on two replicas: there is one last event, and all agree on it."""
    outcomes = await asyncio.gather(
        course.tell("Do"),
        *(course.finish("Done.", on=n % 2) for n in range(2)),
        *(course.cancel(on=n % 2) for n in range(3)),
        course.add(on=1),
        return_exceptions=True,
    )

    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} <= {Conflict, Unauthenticated}
    found = await course.look()
    events = await course.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events if event.is_last] == [f"turn.{found.status}"] == [events[-1].name]
    assert {status.status for status in outcomes[3:6]} == {found.status}  # type: ignore[union-attr]
    assert await course.text() in (("Done.",) if found.status == "completed" else ("", "Do"))


async def test_a_lost_turn_is_stored_as_interrupted(units: UnitsOfWork, course: Course) -> None:
    """Nowhere is it seen as running; its end is that of its lease, its token is revoked, its conversation free."""
    where = course.accepted.turn.conversation_id
    await course.tell("Let me")
    await course.lapse()
    there = course.apps[1]
    for look in (
        there.call(course.owner, get_turn, course.id),
        there.call(course.owner, get_turn_result, course.id),
        there.call(course.owner, list_turns, where, Window()),
        there.call(course.owner, read_events, course.id, 2),
    ):
        with pytest.raises(TurnLost):
            await look

    found = await course.look(on=1)

    async with units.open(course.owner, "read") as uow:
        stored = await uow.turns.get(course.id)
        (token,) = (await uow.context_tokens.page(Window())).items
    assert (found.status, found.usage, found.error) == ("interrupted", SPENT, None)
    assert found.finished_at == stored.lease_until
    assert token.revoked_at
    assert await course.names() == ["turn.started", "message.delta", "turn.interrupted"]
    assert (await course.events())[-1].body == b"{}"
    await assert_is_dead(course)
    await course.begin(where)


async def test_a_lost_turn_that_nobody_looked_at_is_as_dead(course: Course) -> None:
    await course.lapse()
    await assert_refuses_everything(course, 0)
    assert await stored_names(course) == ["turn.started"]


@pytest.mark.parametrize("_round", range(4))
async def test_of_all_who_find_a_turn_lost_one_says_so(course: Course, _round: int) -> None:
    """They look, cancel, settle, go on with the conversation and come back from the dead, on two replicas at once."""
    where = course.accepted.turn.conversation_id
    await course.lapse()
    lost = Course(course.apps, course.owner)
    lost.accepted = course.accepted

    outcomes = await asyncio.gather(
        *(lost.look(on=n % 2) for n in range(4)),
        *(lost.cancel(on=n % 2) for n in range(2)),
        *(course.apps[n % 2].call(course.owner, expire_turns) for n in range(4)),
        lost.finish("And"),
        lost.tell("And", on=1),
        course.begin(where),
        return_exceptions=True,
    )

    *others, finishing, batch, beginning = outcomes
    assert [outcome for outcome in others if isinstance(outcome, BaseException)] == []
    assert (type(finishing), type(batch), beginning) == (Conflict, Conflict, None)
    assert await lost.names() == ["turn.started", "turn.interrupted"]
    assert (await course.look()).status == "running"


async def test_every_lost_turn_of_a_person_is_settled_and_no_other(course: Course, you: Owner) -> None:
    """A look at one settles them all; those that run go on, and those of others are not looked at."""
    lost, running, yours = [Course(course.apps, owner) for owner in (course.owner, course.owner, you)]
    for other in (lost, running, yours):
        await other.begin()
    for other in (course, lost, yours):
        await other.lapse()

    await course.look()

    for other, last in ((course, "interrupted"), (lost, "interrupted"), (running, "started"), (yours, "started")):
        assert (await stored_names(other))[-1] == f"turn.{last}"
    assert not (await running.add()).is_error


async def stored_names(course: Course) -> list[str]:
    """Whether or not the turn is lost."""
    log = await course.apps[0].call(course.owner, read_events, course.id, 0)
    return [event.name for event in log.events]


async def test_lost_turns_do_not_count(course: Course) -> None:
    """Whoever has as many as may run, and lost them all, begins another at once."""
    lost = [course, *(Course(course.apps, course.owner) for _ in range(LIMITS.turns_per_user - 1))]
    for other in lost[1:]:
        await other.begin()
    with pytest.raises(TooManyTurns):
        await Course(course.apps, course.owner).begin()
    for other in lost:
        await other.lapse()

    await Course(course.apps, course.owner).begin()

    assert [await other.names() for other in lost] == [["turn.started", "turn.interrupted"]] * len(lost)
