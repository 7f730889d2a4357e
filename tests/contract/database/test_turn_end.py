"""A turn ends exactly once: finished, cancelled or expired; nothing of it happens afterwards."""

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
from tests.contract.database.running_turn import SPENT, RunningTurn


async def assert_accepts_no_writes(running_turn: RunningTurn) -> None:
    """On every replica: neither its token nor the process that ran it can write to it."""
    before = await running_turn.events()
    written = await running_turn.text()
    await assert_refuses_everything(running_turn, len(written))
    assert await running_turn.events() == before


async def assert_refuses_everything(running_turn: RunningTurn, length: int) -> None:
    for on in (0, 1):
        for attempt in (
            running_turn.add(on=on),
            running_turn.append_text("And", length, on=on),
            running_turn.renew(timedelta(minutes=1), on=on),
            running_turn.finish("And this", on=on),
        ):
            with pytest.raises((Conflict, Unauthenticated)):
                await attempt
    assert await running_turn.task_titles() == []


@pytest.mark.parametrize("on", [0, 1], ids=["here", "from another replica"])
async def test_cancelled_turn_stops_tool_calls_and_events(running_turn: RunningTurn, on: int) -> None:
    await running_turn.append_text("Let me")
    cancelled = await running_turn.cancel(on)

    assert cancelled.status == "cancelled"
    assert cancelled.finished_at
    assert cancelled == await running_turn.read()
    assert cancelled.usage == SPENT
    assert await running_turn.event_names() == ["turn.started", "message.delta", "turn.cancelled"]
    assert (await running_turn.events())[-1].body == b"{}"
    await assert_accepts_no_writes(running_turn)


async def test_cancel_twice_changes_nothing(running_turn: RunningTurn) -> None:
    first = await running_turn.cancel()
    outcomes = await asyncio.gather(*(running_turn.cancel(on=n % 2) for n in range(6)))

    assert outcomes == [first] * 6
    assert await running_turn.event_names() == ["turn.started", "turn.cancelled"]


@pytest.mark.parametrize("status", ["completed", "interrupted"])
async def test_cancel_of_finished_turn_changes_nothing(running_turn: RunningTurn, status: TurnStatus) -> None:
    ended = await running_turn.finish("Done.", status)

    assert await running_turn.cancel(on=1) == ended.turn
    assert (await running_turn.read()).status == status
    assert (await running_turn.event_names())[-1] == f"turn.{status}"


async def test_cancelled_lost_turn_has_no_further_attempt(running_turn: RunningTurn) -> None:
    """No process continues it."""
    await running_turn.expire_lease()

    assert (await running_turn.cancel(on=1)).status == "cancelled"
    assert await running_turn.event_names() == ["turn.started", "turn.cancelled"]


async def test_cancel_isolation_between_users(running_turn: RunningTurn, you: Owner) -> None:
    with pytest.raises(NotFound, match="There is no such turn"):
        await running_turn.dispatchers[0].call(you, cancel_turn, running_turn.id)

    assert (await running_turn.read()).status == "running"
    assert not (await running_turn.add()).is_error


async def test_turn_result_failure_tells_why_there_is_no_answer(running_turn: RunningTurn) -> None:
    where = running_turn.started.turn.conversation_id
    await running_turn.cancel()
    cancelled = await running_turn.dispatchers[1].call(running_turn.owner, get_turn_result, running_turn.id)
    await running_turn.start(where)
    await running_turn.expire_lease()
    with pytest.raises(TurnLost):
        await running_turn.dispatchers[1].call(running_turn.owner, get_turn_result, running_turn.id)
    await running_turn.read()
    interrupted = await running_turn.dispatchers[1].call(running_turn.owner, get_turn_result, running_turn.id)

    assert cancelled
    assert interrupted
    failure = interrupted.failure
    assert (type(cancelled.failure), type(failure)) == (TurnCancelled, TurnInterrupted)
    assert failure
    assert failure.members == {"turn_id": running_turn.id, "conversation_id": where}


async def test_running_turn_has_no_result(running_turn: RunningTurn) -> None:
    assert await running_turn.dispatchers[0].call(running_turn.owner, get_turn_result, running_turn.id) is None


@pytest.mark.parametrize("_round", range(4))
async def test_concurrent_calls_none_commits_after_cancel(running_turn: RunningTurn, _round: int) -> None:
    """Eight callers on two replicas: nothing is added after the cancel has returned."""
    calling = [asyncio.Event() for _ in range(8)]

    async def caller(number: int) -> int:
        for answered in range(1_000):
            try:
                await running_turn.add(f"{number}", on=number % 2)
            except Unauthenticated:
                return answered
            calling[number].set()
        raise AssertionError

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    await asyncio.gather(*(event.wait() for event in calling))
    cancelled = await running_turn.cancel(on=1)
    effects, events = len(await running_turn.task_titles()), await running_turn.events()
    answered = sum(await asyncio.gather(*callers))

    assert effects == len(await running_turn.task_titles()) == answered == len(cancelled.tool_calls)
    assert events == await running_turn.events()
    assert events[-1].name == "turn.cancelled"


@pytest.mark.parametrize("_round", range(4))
async def test_concurrent_finish_and_cancel_end_turn_once(running_turn: RunningTurn, _round: int) -> None:
    """Finish, cancel and append on two replicas: there is one final event, and all results agree with it."""
    outcomes = await asyncio.gather(
        running_turn.append_text("Do"),
        *(running_turn.finish("Done.", on=n % 2) for n in range(2)),
        *(running_turn.cancel(on=n % 2) for n in range(3)),
        running_turn.add(on=1),
        return_exceptions=True,
    )

    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} <= {Conflict, Unauthenticated}
    published = await running_turn.read()
    events = await running_turn.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events if event.is_last] == [f"turn.{published.status}"] == [events[-1].name]
    assert {status.status for status in outcomes[3:6]} == {published.status}  # type: ignore[union-attr]
    assert await running_turn.text() in (("Done.",) if published.status == "completed" else ("", "Do"))


async def test_expired_lease_stores_turn_as_interrupted(units: UnitsOfWork, running_turn: RunningTurn) -> None:
    """No read shows it as running; it ended with its lease, its token is revoked, its conversation is free."""
    where = running_turn.started.turn.conversation_id
    await running_turn.append_text("Let me")
    await running_turn.expire_lease()
    there = running_turn.dispatchers[1]
    for look in (
        there.call(running_turn.owner, get_turn, running_turn.id),
        there.call(running_turn.owner, get_turn_result, running_turn.id),
        there.call(running_turn.owner, list_turns, where, Window()),
        there.call(running_turn.owner, read_events, running_turn.id, 2),
    ):
        with pytest.raises(TurnLost):
            await look

    published = await running_turn.read(on=1)

    async with units.open(running_turn.owner, "read") as uow:
        stored = await uow.turns.get(running_turn.id)
        (token,) = (await uow.context_tokens.page(Window())).items
    assert (published.status, published.usage, published.error) == ("interrupted", SPENT, None)
    assert published.finished_at == stored.lease_until
    assert token.revoked_at
    assert await running_turn.event_names() == ["turn.started", "message.delta", "turn.interrupted"]
    assert (await running_turn.events())[-1].body == b"{}"
    await assert_accepts_no_writes(running_turn)
    await running_turn.start(where)


async def test_expired_lease_stops_turn_before_it_is_read(running_turn: RunningTurn) -> None:
    await running_turn.expire_lease()
    await assert_refuses_everything(running_turn, 0)
    assert await stored_names(running_turn) == ["turn.started"]


@pytest.mark.parametrize("_round", range(4))
async def test_concurrent_expiry_of_lost_turn_appends_one_event(running_turn: RunningTurn, _round: int) -> None:
    """Reads, cancels, expiry, new turns and the old process, concurrently on two replicas."""
    where = running_turn.started.turn.conversation_id
    await running_turn.expire_lease()
    lost = RunningTurn(running_turn.dispatchers, running_turn.owner)
    lost.started = running_turn.started

    outcomes = await asyncio.gather(
        *(lost.read(on=n % 2) for n in range(4)),
        *(lost.cancel(on=n % 2) for n in range(2)),
        *(running_turn.dispatchers[n % 2].call(running_turn.owner, expire_turns) for n in range(4)),
        lost.finish("And"),
        lost.append_text("And", on=1),
        running_turn.start(where),
        return_exceptions=True,
    )

    *others, finishing, batch, beginning = outcomes
    assert [outcome for outcome in others if isinstance(outcome, BaseException)] == []
    assert (type(finishing), type(batch), beginning) == (Conflict, Conflict, None)
    assert await lost.event_names() in [["turn.started", "turn.interrupted"], ["turn.started", "turn.cancelled"]]
    assert (await running_turn.read()).status == "running"


async def test_expire_turns_expires_only_lost_turns_of_user(running_turn: RunningTurn, you: Owner) -> None:
    """Reading one expires them all; running turns continue, and other users' turns are not touched."""
    lost, running, yours = [
        RunningTurn(running_turn.dispatchers, owner) for owner in (running_turn.owner, running_turn.owner, you)
    ]
    for other in (lost, running, yours):
        await other.start()
    for other in (running_turn, lost, yours):
        await other.expire_lease()

    await running_turn.read()

    for other, last in ((running_turn, "interrupted"), (lost, "interrupted"), (running, "started"), (yours, "started")):
        assert (await stored_names(other))[-1] == f"turn.{last}"
    assert not (await running.add()).is_error


async def stored_names(running_turn: RunningTurn) -> list[str]:
    """Return the stored event names, without expiring a lost turn."""
    log = await running_turn.dispatchers[0].call(running_turn.owner, read_events, running_turn.id, 0)
    return [event.name for event in log.events]


async def test_expired_turns_do_not_count_as_running(running_turn: RunningTurn) -> None:
    """A user whose running turns are all lost can start another at once."""
    lost = [
        running_turn,
        *(RunningTurn(running_turn.dispatchers, running_turn.owner) for _ in range(LIMITS.turns_per_user - 1)),
    ]
    for other in lost[1:]:
        await other.start()
    with pytest.raises(TooManyTurns):
        await RunningTurn(running_turn.dispatchers, running_turn.owner).start()
    for other in lost:
        await other.expire_lease()

    await RunningTurn(running_turn.dispatchers, running_turn.owner).start()

    assert [await other.event_names() for other in lost] == [["turn.started", "turn.interrupted"]] * len(lost)
