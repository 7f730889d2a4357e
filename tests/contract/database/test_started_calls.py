"""Started calls in the repositories: one unit of work starts a call, and only a started call is completed, once."""

import pytest
from msgspec import Raw

from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, DuplicateToolCall
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.tool_call import NO_RESULT, IdempotentCall, ToolCall
from latchkey.domain.turn import TurnId
from tests.builders import NOW, a_conversation, a_tool_call, a_turn

PENDING, DONE = '{"code":"conflict"}', '{"number":"N1"}'


@pytest.fixture
async def turn_id(units: UnitsOfWork, me: Owner) -> TurnId:
    conversation = a_conversation()
    turn = a_turn(conversation)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.commit()
    return turn.id


def started() -> ToolCall:
    return a_tool_call(result=NO_RESULT, is_error=True)


async def test_call_is_started_once(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    async with units.open(me, "write") as uow:
        starts = [await uow.tool_calls.start(started(), turn_id, "call-1") for _ in range(2)]
        stored = await uow.tool_calls.find(turn_id, "call-1")

    assert starts[0] is not None
    assert not starts[0].was_announced
    assert starts[1] is None
    assert stored is not None
    assert (stored.call.id, stored.is_started) == (starts[0].id, True)


async def test_announced_call_is_started_once_with_its_id(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    announced = started()
    async with units.open(me, "write") as uow:
        await uow.tool_calls.add_if_absent(announced, turn_id, "call-1")
        before = await uow.tool_calls.find(turn_id, "call-1")
        starts = [await uow.tool_calls.start(started(), turn_id, "call-1") for _ in range(2)]

    assert before is not None
    assert not before.is_started
    assert starts[0] is not None
    assert (starts[0].id, starts[0].was_announced, starts[1]) == (announced.id, True, None)


async def test_call_with_result_is_not_started(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    async with units.open(me, "write") as uow:
        await uow.tool_calls.add(a_tool_call(), turn_id, "call-1")
        assert await uow.tool_calls.start(started(), turn_id, "call-1") is None


async def test_started_call_is_completed_once(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    call = started()
    results = [a_tool_call(id=call.id, result=Raw(json)) for json in (b'{"first":1}', b'{"second":2}')]
    async with units.open(me, "write") as uow:
        await uow.tool_calls.start(call, turn_id, "call-1")
        completed = [await uow.tool_calls.complete(turn_id, result) for result in results]
        stored = await uow.tool_calls.find(turn_id, "call-1")

    assert completed == [True, False]
    assert stored is not None
    assert (stored.call.result, stored.call.is_error, stored.is_started) == (results[0].result, False, False)


async def test_result_of_transaction_is_not_set_on_started_call(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    async with units.open(me, "write") as uow:
        await uow.tool_calls.start(started(), turn_id, "call-1")
        with pytest.raises(DuplicateToolCall):
            await uow.tool_calls.set_result(turn_id, "call-1", a_tool_call())


async def test_call_that_was_only_announced_is_not_completed(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    announced = started()
    async with units.open(me, "write") as uow:
        await uow.tool_calls.add_if_absent(announced, turn_id, "call-1")
        assert not await uow.tool_calls.complete(turn_id, a_tool_call(id=announced.id))


async def test_started_call_of_another_user_is_neither_started_nor_completed(
    units: UnitsOfWork, me: Owner, you: Owner, turn_id: TurnId
) -> None:
    call = started()
    async with units.open(me, "write") as uow:
        await uow.tool_calls.start(call, turn_id, "call-1")
        await uow.commit()
    async with units.open(you, "write") as uow:
        assert await uow.tool_calls.find(turn_id, "call-1") is None
        assert not await uow.tool_calls.complete(turn_id, a_tool_call(id=call.id))


async def test_event_numbers_are_taken_without_counting_a_call(units: UnitsOfWork, me: Owner, turn_id: TurnId) -> None:
    async with units.open(me, "write") as uow:
        await uow.turns.lock(turn_id)
        taken = [await uow.turns.take_event_numbers(turn_id, NOW, 2) for _ in range(2)]
        counted = await uow.turns.count_tool_call(turn_id, NOW, 1, most=1)
        await uow.commit()

    assert [*taken, counted] == [1, 3, 5]


async def test_event_numbers_of_ended_turn_are_refused(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    turn = a_turn(conversation, status="cancelled")
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        with pytest.raises(Conflict):
            await uow.turns.take_event_numbers(turn.id, NOW, 1)


@pytest.mark.parametrize(("pending", "expected"), [(PENDING, DONE), ("another", PENDING)])
async def test_call_outside_turn_is_completed_if_it_is_pending(
    units: UnitsOfWork, me: Owner, pending: str, expected: str
) -> None:
    call = IdempotentCall("owner", "call-1", "digest", PENDING, is_error=True, created_at=NOW)
    done = IdempotentCall("owner", "call-1", "digest", DONE, is_error=False, created_at=NOW)
    async with units.open(me, "write") as uow:
        await uow.idempotent_calls.add(call)
        await uow.idempotent_calls.complete(done, pending)
        found = await uow.idempotent_calls.find("owner", "call-1", NOW)

    assert found is not None
    assert (found.response, found.is_error) == (expected, expected == PENDING)
