"""Contract of the turn repository, and of the repository of tool calls."""

import asyncio
from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from latchkey.domain.conversation import Conversation
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import TurnInProgress
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.turn_repositories import LISTING, Order, TurnWithCalls
from tests.builders import NOW, a_conversation, a_task, a_tool_call, a_turn
from tests.contract.database.conftest import Replica
from tests.contract.database.pagination import assert_pages, assert_refuses

ORDERS: list[Order] = ["asc", "desc"]
ENDED: list[TurnStatus] = ["completed", "failed", "cancelled", "interrupted"]


@pytest.fixture
async def conversation(units: UnitsOfWork, me: Owner) -> Conversation:
    conversation = a_conversation()
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.commit()
    return conversation


async def add(units: UnitsOfWork, owner: Owner, *turns: Turn) -> None:
    async with units.open(owner, "write") as uow:
        for turn in turns:
            await uow.turns.add(turn)
        await uow.commit()


@pytest.mark.parametrize("status", ENDED)
async def test_turn_round_trip(units: UnitsOfWork, me: Owner, conversation: Conversation, status: TurnStatus) -> None:
    running = a_turn(conversation)
    ended = replace(
        running,
        status=status,
        error=TurnError("max-steps", "Too many. 🛑") if status == "failed" else None,
        usage=Usage(12, 2**40, 2**41),
        model="models/qwen-3 🛒",
        finished_at=NOW + timedelta(microseconds=1),
        lease_until=NOW,
    )
    await add(units, me, running)

    async with units.open(me, "write") as uow:
        assert await uow.turns.get(running.id) == running
        await uow.turns.update(ended)
        assert await uow.turns.get(running.id, for_update=True) == ended
        assert await uow.turns.list_running() == []


async def test_turn_pagination_newest_first(units: UnitsOfWork, me: Owner, conversation: Conversation) -> None:
    other = a_conversation()
    made = [a_turn(conversation, status="completed") for _ in range(5)]
    async with units.open(me, "write") as uow:
        await uow.conversations.add(other)
        await uow.commit()
    await add(units, me, *made, a_turn(other))

    async with units.open(me, "read") as uow:
        expected = [TurnWithCalls(turn, []) for turn in made[::-1]]
        await assert_pages(lambda window: uow.turns.page(conversation.id, window), expected)


async def test_turn_cursor_of_another_listing_is_refused(
    units: UnitsOfWork, me: Owner, conversation: Conversation
) -> None:
    """Although both cursors hold an id."""
    await add(units, me, a_turn(conversation))
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.tasks.add(a_task())
        foreign = (await uow.tasks.page(None, Window(1))).next_cursor
        await assert_refuses(lambda window: uow.turns.page(conversation.id, window), foreign)


async def test_list_running_returns_turns_stored_as_running(units: UnitsOfWork, me: Owner) -> None:
    """Whether or not their lease has expired: the caller checks that."""
    conversations = [a_conversation() for _ in range(3)]
    running, expired = a_turn(conversations[0]), a_turn(conversations[1], lease_until=NOW)
    async with units.open(me, "write") as uow:
        for conversation in conversations:
            await uow.conversations.add(conversation)
        await uow.commit()
    await add(units, me, running, expired, *(a_turn(conversations[2], status=status) for status in ENDED))

    async with units.open(me, "read") as uow:
        unfinished = await uow.turns.list_running()
        assert sorted(unfinished, key=lambda turn: turn.id) == [running, expired]


async def test_second_running_turn_of_conversation_is_refused(
    units: UnitsOfWork, me: Owner, conversation: Conversation
) -> None:
    """Beside any number of finished turns."""
    first = a_turn(conversation)
    await add(units, me, first, a_turn(conversation, status="completed"), a_turn(conversation, status="failed"))

    with pytest.raises(TurnInProgress):
        await add(units, me, a_turn(conversation))

    async with units.open(me, "write") as uow:
        await uow.turns.update(replace(first, status="completed"))
        await uow.turns.add(a_turn(conversation))
        await uow.commit()


async def test_concurrent_turns_of_conversation_only_one_runs(
    replica: Replica, me: Owner, conversation: Conversation
) -> None:
    """Without a check before: the database refuses the second."""
    processes = [replica(), replica()]

    outcomes = await asyncio.gather(
        *(add(processes[n % 2], me, a_turn(conversation)) for n in range(6)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["TurnInProgress"] * 5


EXACT = {
    "spaces and order": b'{ "b" : 1 ,\t"a":2,\n"b":3 }',
    "numbers as they were written": b"[1.0, 1e400, -0, 123456789012345678901234567890, 0.10]",
    "escapes": b'"\\u00e9 \\ud83d\\uded2 \\/ \\u0000 \\ud800"',
    "any Unicode": '"🛒 買 \u2028 \u202e \U0010ffff \x7f"'.encode(),
    "not JSON": b"{oops",
    "nothing": b"",
}


@pytest.mark.parametrize("json", EXACT.values(), ids=EXACT)
async def test_tool_call_round_trip_keeps_every_byte(
    units: UnitsOfWork, me: Owner, conversation: Conversation, json: bytes
) -> None:
    turn, call = a_turn(conversation), a_tool_call("🛠", arguments=Raw(json), result=Raw(json), is_error=True)
    await add(units, me, turn)
    async with units.open(me, "write") as uow:
        await uow.tool_calls.add(call, turn.id)
        await uow.commit()

    async with units.open(me, "read") as uow:
        (found,) = await uow.tool_calls.list_of_turn(turn.id)
        assert (bytes(found.arguments), bytes(found.result)) == (json, json)
        assert replace(found, arguments=call.arguments, result=call.result) == call


async def test_tool_calls_are_oldest_first_within_turn(
    units: UnitsOfWork, me: Owner, conversation: Conversation
) -> None:
    turns = [a_turn(conversation, status="completed") for _ in range(3)]
    calls = {turn.id: [a_tool_call(f"{n}") for n in range(12)] for turn in turns[:2]}
    await add(units, me, *turns)
    async with units.open(me, "write") as uow:
        for turn_id, made in reversed(calls.items()):
            for call in reversed(made):
                await uow.tool_calls.add(call, turn_id)
        await uow.commit()

    async with units.open(me, "read") as uow:
        for order in ORDERS:
            assert (await uow.tool_calls.list_by_turn([turn.id for turn in turns], LISTING, order)).calls == calls
            assert (await uow.tool_calls.list_by_turn([], LISTING, order)).calls == {}
            assert (await uow.tool_calls.list_by_turn([TurnId(uow.new_id())], LISTING, order)).calls == {}
        assert await uow.tool_calls.list_of_turn(turns[1].id) == calls[turns[1].id]
        assert await uow.tool_calls.list_of_turn(turns[2].id) == []


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8, 9, 40, 200])
async def test_list_by_turn_takes_any_number_of_turns(
    units: UnitsOfWork, me: Owner, conversation: Conversation, number: int
) -> None:
    turns = [a_turn(conversation, status="completed") for _ in range(number)]
    await add(units, me, *turns)
    async with units.open(me, "write") as uow:
        for turn in turns:
            await uow.tool_calls.add(a_tool_call(), turn.id)

        found = await uow.tool_calls.list_by_turn([turn.id for turn in turns], LISTING, "desc")
        assert {id: len(calls) for id, calls in found.calls.items()} == {turn.id: 1 for turn in turns}
