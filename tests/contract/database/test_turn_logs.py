"""The log of a conversation, which front ends read: turns that are not replaced, each with its message and events."""

from datetime import timedelta
from uuid import UUID

import pytest
from msgspec import Raw
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import TurnOutcome, cancel_turn, finish_turn
from latchkey.application.turns.log import (
    ConversationLog,
    cancel_unfinished_turn,
    find_running_turn,
    find_turn,
    get_conversation_log,
    get_next_turn,
    get_turn_log,
)
from latchkey.application.turns.record import renew_turn
from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, NotFound, TurnLost
from latchkey.domain.message import NewMessage
from latchkey.domain.page import PAGE_BYTES
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.turn import ClientRequest, Turn, TurnId, Usage
from latchkey.domain.turn_event import (
    MAX_SHOWN_BYTES,
    MessageDeltaEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
    TurnStartedEvent,
    numbered,
)
from latchkey.domain.turn_repositories import Order
from latchkey.interfaces.http.frontends.turn_events import EventReader
from tests.builders import LIMITS, a_conversation, a_message, a_tool_call, a_turn
from tests.turns import profiles_of

NAME = "chat-7"
DONE = TurnOutcome("completed", Usage(1, 2, 3), "Done.")


async def started(
    dispatcher: Dispatcher, owner: Owner, text: str, message_id: str | None = None, **fields: object
) -> Turn:
    message = NewMessage(text, client_conversation_id=NAME, **fields)  # type: ignore[arg-type]
    request = ClientRequest(message_id=message_id)
    turn = await dispatcher.call(owner, start_turn, message, profiles_of(), LIMITS, request)
    assert isinstance(turn, StartedTurn)
    return turn.turn


async def completed(
    dispatcher: Dispatcher, owner: Owner, text: str, message_id: str | None = None, **fields: object
) -> Turn:
    turn = await started(dispatcher, owner, text, message_id, **fields)
    await dispatcher.call(owner, finish_turn, turn.id, DONE)
    return turn


async def waiting(dispatcher: Dispatcher, units: UnitsOfWork, owner: Owner, lease: timedelta) -> Turn:
    """A turn that waits for the user until its lease ends."""
    turn = await started(dispatcher, owner, "one")
    async with units.open(owner, "exclusive") as uow:
        await uow.turns.update(replace(turn, status="waiting", lease_until=uow.now + lease))
        await uow.commit()
    return turn


async def test_conversation_log_has_active_turns_with_messages_and_events(dispatcher: Dispatcher, me: Owner) -> None:
    call = dispatcher.call
    first = await completed(dispatcher, me, "one", "m-1")
    second = await completed(dispatcher, me, "two", "m-2")
    third = await completed(dispatcher, me, "zwei", "m-2", replaces=second.id)
    fourth = await started(dispatcher, me, "drei")

    log = await call(me, get_conversation_log, NAME, 10)
    by_id = await call(me, get_conversation_log, str(first.conversation_id), 10)

    assert log == by_id
    assert log.conversation_id == first.conversation_id
    assert [turn.turn.id for turn in log.turns] == [first.id, third.id, fourth.id]
    assert [turn.message.content for turn in log.turns] == ["one", "zwei", "drei"]
    assert [turn.message_id for turn in log.turns] == ["m-1", "m-2", str(log.turns[-1].message.id)]
    assert [[event.name for event in turn.events] for turn in log.turns] == [
        ["turn.started", "message.delta", "turn.completed"]
    ] * 2 + [[]]
    assert (log.running_turn_id, log.has_more) == (fourth.id, False)
    assert await call(me, get_turn_log, first.id) == log.turns[0]
    assert (await call(me, get_turn_log, fourth.id)).events == []


async def test_conversation_log_pagination_backward_returns_each_turn_once(dispatcher: Dispatcher, me: Owner) -> None:
    turns = [await completed(dispatcher, me, f"message {n}") for n in range(5)]

    newest = await dispatcher.call(me, get_conversation_log, NAME, 2)
    middle = await dispatcher.call(me, get_conversation_log, NAME, 2, turns[3].id)
    oldest = await dispatcher.call(me, get_conversation_log, NAME, 2, turns[1].id)

    pages = [[turn.turn.id for turn in page.turns] for page in (newest, middle, oldest)]
    ids = [turn.id for turn in turns]
    assert pages == [ids[3:], ids[1:3], ids[:1]]
    assert [page.has_more for page in (newest, middle, oldest)] == [True, True, False]


async def test_conversation_log_pagination_forward_returns_each_turn_once(dispatcher: Dispatcher, me: Owner) -> None:
    turns = [await completed(dispatcher, me, f"message {n}") for n in range(5)]

    positions = [TurnId(UUID(int=0)), turns[1].id, turns[3].id, turns[4].id]
    pages = [await dispatcher.call(me, get_conversation_log, NAME, 2, after=position) for position in positions]

    ids = [turn.id for turn in turns]
    assert [[turn.turn.id for turn in page.turns] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    assert [page.has_more for page in pages] == [True, True, False, False]


async def test_conversation_log_forward_skips_no_turn_with_large_events(
    dispatcher: Dispatcher, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latchkey.application.turns.log.PAGE_BYTES", 1)
    first, second = [await completed(dispatcher, me, f"message {n}") for n in range(2)]
    running = await started(dispatcher, me, "last")

    positions = [TurnId(UUID(int=0)), first.id, second.id]
    pages = [await dispatcher.call(me, get_conversation_log, NAME, 10, after=position) for position in positions]

    assert [[turn.turn.id for turn in page.turns] for page in pages] == [
        [first.id],
        [second.id, running.id],
        [running.id],
    ]
    assert [page.has_more for page in pages] == [True, False, False]


async def test_conversation_log_with_large_messages_has_fewer_turns_and_skips_none(
    dispatcher: Dispatcher, me: Owner
) -> None:
    """A page of 200 turns could have 25 MB of messages."""
    large = "\U0001f511" * 32_000
    turns = [await completed(dispatcher, me, "small" if n == 3 else large) for n in range(20)]
    pages = [await log(dispatcher, me)]
    while pages[-1].has_more:
        pages.append(await log(dispatcher, me, before=pages[-1].turns[0].turn.id))
    backward = [turn.turn.id for page in pages[::-1] for turn in page.turns]
    forward = await log(dispatcher, me, after=turns[3].id)

    assert backward == [turn.id for turn in turns]
    assert max(sum(len(turn.message.content.encode()) for turn in page.turns) for page in pages) <= PAGE_BYTES
    assert [turn.turn.id for turn in forward.turns] == backward[4:]
    assert not forward.has_more
    assert [len(turn.message.content) for turn in forward.turns] == [32_000] * 16


async def log(
    dispatcher: Dispatcher, owner: Owner, before: TurnId | None = None, after: TurnId | None = None
) -> ConversationLog:
    return await dispatcher.call(owner, get_conversation_log, NAME, 200, before, after)


async def test_events_of_running_turn_are_read_where_they_are_asked_for(dispatcher: Dispatcher, me: Owner) -> None:
    await completed(dispatcher, me, "first")
    running = await started(dispatcher, me, "second")

    without = await log(dispatcher, me)
    with_events = await dispatcher.call(me, get_conversation_log, NAME, 200, with_running=True)
    alone = await dispatcher.call(me, get_turn_log, running.id, with_running=True)

    assert (without.turns[-1].events, without.running_turn_id) == ([], running.id)
    assert [event.name for event in with_events.turns[-1].events] == ["turn.started"]
    assert with_events.running_turn_id == running.id
    assert alone == with_events.turns[-1]
    assert (await dispatcher.call(me, get_turn_log, running.id)).events == []


async def test_next_turn_is_the_one_that_a_branch_replaces(dispatcher: Dispatcher, me: Owner, you: Owner) -> None:
    first, second, third = [await completed(dispatcher, me, f"message {n}") for n in range(3)]
    conversation_id = first.conversation_id

    assert await dispatcher.call(me, get_next_turn, first.id) == (conversation_id, second.id)
    assert await dispatcher.call(me, get_next_turn, third.id) == (conversation_id, None)
    branch = await completed(dispatcher, me, "instead", replaces=second.id)
    assert await dispatcher.call(me, get_next_turn, first.id) == (conversation_id, branch.id)
    with pytest.raises(Conflict):
        await dispatcher.call(me, get_next_turn, third.id)
    with pytest.raises(NotFound):
        await dispatcher.call(you, get_next_turn, first.id)


async def test_turn_is_found_by_the_ids_of_its_messages(dispatcher: Dispatcher, me: Owner, you: Owner) -> None:
    first = await completed(dispatcher, me, "one", "m-1")
    second = await completed(dispatcher, me, "two", "m-2")
    third = await completed(dispatcher, me, "zwei", "m-2", replaces=second.id)
    (log, _) = (await dispatcher.call(me, get_conversation_log, NAME, 10)).turns

    async def find(*ids: str, owner: Owner = me, name: str = NAME) -> TurnId | None:
        turn = await dispatcher.call(owner, find_turn, name, ids)
        return turn.turn.id if turn else None

    assert await find("m-1") == await find(str(log.message.id)) == await find(str(first.id)) == first.id
    assert await find("unknown", "m-2", "m-1") == third.id
    assert await find() == third.id
    assert await find(str(second.id)) is None
    assert await find("unknown") is None
    assert await find("m-1", name="unknown") is None
    assert await find("m-1", owner=you) is None
    assert await find(str(first.id), owner=you, name=str(first.conversation_id)) is None


async def test_conversation_log_of_an_unknown_name_is_empty(dispatcher: Dispatcher, me: Owner, you: Owner) -> None:
    turn = await started(dispatcher, me, "one")

    for owner, name in ((me, "unknown"), (you, NAME), (you, str(turn.conversation_id))):
        log = await dispatcher.call(owner, get_conversation_log, name, 10)
        assert (log.conversation_id, log.turns, log.running_turn_id) == (None, [], None)
        assert await dispatcher.call(owner, find_running_turn, name) is None
        assert await dispatcher.call(owner, cancel_unfinished_turn, name) is None
    with pytest.raises(NotFound):
        await dispatcher.call(you, get_turn_log, turn.id)
    assert await dispatcher.call(me, find_running_turn, NAME) == turn.id


async def test_lost_turn_is_expired_before_its_log_is_read(dispatcher: Dispatcher, me: Owner) -> None:
    turn = await started(dispatcher, me, "one")
    await dispatcher.call(me, renew_turn, turn.id, timedelta(seconds=-1))

    for use_case, argument in ((get_turn_log, turn.id), (find_running_turn, NAME)):
        with pytest.raises(TurnLost):
            await dispatcher.call(me, use_case, argument)  # type: ignore[arg-type]  # each has its own argument
    with pytest.raises(TurnLost):
        await dispatcher.call(me, get_conversation_log, NAME, 10)
    log = await with_expiry(dispatcher, me, get_conversation_log, NAME, 10)
    assert ([item.turn.status for item in log.turns], log.running_turn_id) == (["interrupted"], None)


async def test_waiting_turn_that_is_to_be_continued_is_noticed_before_its_log_is_read(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    """All its questions are decided, or have expired."""
    turn = await waiting(dispatcher, units, me, timedelta())

    for use_case, argument in ((get_turn_log, turn.id), (find_running_turn, NAME)):
        with pytest.raises(TurnLost):
            await dispatcher.call(me, use_case, argument)  # type: ignore[arg-type]  # each has its own argument
    with pytest.raises(TurnLost):
        await dispatcher.call(me, get_conversation_log, NAME, 10)


async def test_waiting_turn_is_not_running_and_can_be_cancelled_by_the_name_of_its_conversation(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    turn = await waiting(dispatcher, units, me, timedelta(days=1))

    log = await dispatcher.call(me, get_conversation_log, NAME, 10)
    assert ([item.turn.status for item in log.turns], log.running_turn_id) == (["waiting"], None)
    assert await dispatcher.call(me, find_running_turn, NAME) is None
    assert await dispatcher.call(me, cancel_unfinished_turn, NAME) == turn.id
    assert await dispatcher.call(me, cancel_unfinished_turn, NAME) is None


async def test_running_turn_is_cancelled_by_the_name_of_its_conversation(dispatcher: Dispatcher, me: Owner) -> None:
    call = dispatcher.call
    turn = await started(dispatcher, me, "one")

    assert await call(me, find_running_turn, NAME) == turn.id
    assert await call(me, cancel_unfinished_turn, NAME) == turn.id
    assert await call(me, find_running_turn, NAME) is None
    assert await call(me, cancel_unfinished_turn, NAME) is None
    assert (await call(me, cancel_turn, turn.id)).status == "cancelled"


async def test_events_of_turns_are_read_up_to_a_number_of_bytes(units: UnitsOfWork, me: Owner) -> None:
    """Whole turns, beginning with the newest or the oldest: the last one is that which reaches the bound."""
    conversation = a_conversation()
    turns = [a_turn(conversation, status="completed") for _ in range(3)]
    events = {turn.id: events_of(turn, size) for turn, size in zip(turns, (10, 600, 600), strict=True)}
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation, messages=3)
        for seq, turn in enumerate(turns, 1):
            await uow.turns.add(turn)
            await uow.messages.add(a_message(turn, seq))
            await uow.turn_events.add(*events[turn.id])
        await uow.commit()

    async def read(size: int, order: Order = "desc") -> dict[TurnId, list[TurnEvent]]:
        async with units.open(me, "read") as uow:
            return await uow.turn_events.list_of_turns([turn.id for turn in turns], size, order)

    assert await read(PAGE_BYTES) == events
    assert await read(1000) == {turn.id: events[turn.id] for turn in turns[1:]}
    assert await read(1) == {turns[2].id: events[turns[2].id]}
    assert await read(300, "asc") == {turn.id: events[turn.id] for turn in turns[:2]}
    assert await read(1, "asc") == {turns[0].id: events[turns[0].id]}
    async with units.open(me, "read") as uow:
        assert await uow.turn_events.list_of_turns([], 1) == {}


async def test_events_of_turns_include_large_arguments_of_calls(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    turn = a_turn(conversation)
    call = a_tool_call("x" * 5000)
    event = TurnEvent.of(turn.id, 1, ToolCallStartedEvent(call.id, call.name, call.arguments))
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.tool_calls.add(call, turn.id)
        await uow.turn_events.add(event)
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert await uow.turn_events.list_of_turns([turn.id], 1) == {turn.id: [event]}


def events_of(turn: Turn, size: int) -> list[TurnEvent]:
    start = TurnStartedEvent(ConversationId(turn.conversation_id), "rehearsal")
    return numbered(turn.id, 0, start, MessageDeltaEvent("x" * size), MessageDeltaEvent("y"))


def test_event_is_decoded_as_it_was_encoded() -> None:
    turn = a_turn(a_conversation())
    call = ToolCallStartedEvent(a_tool_call().id, "add_task", Raw(b'{"title":"Milk"}'))

    assert TurnEvent.of(turn.id, 1, call).decode() == call
    assert TurnEvent(turn.id, 1, "turn.of_a_later_release", b"{}").decode() is None


@pytest.mark.parametrize("size", [MAX_SHOWN_BYTES, MAX_SHOWN_BYTES + 1])
async def test_events_of_turns_leave_out_what_front_ends_do_not_show(units: UnitsOfWork, me: Owner, size: int) -> None:
    """The database does not send it. Translators read the events as they read those of the stream."""
    conversation = a_conversation()
    turn = a_turn(conversation)
    call = replace(a_tool_call(), result=Raw(b'"' + b"x" * (size - 2) + b'"'))
    started = ToolCallStartedEvent(call.id, call.name, call.arguments)
    completed = ToolCallCompletedEvent(call.id, call.name, call.result, is_error=False, duration_ms=1)
    events = numbered(turn.id, 0, started, completed)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.tool_calls.add(call, turn.id)
        await uow.turn_events.add(*events)
        await uow.commit()

    async with units.open(me, "read") as uow:
        (stored,) = (await uow.turn_events.list_of_turns([turn.id], PAGE_BYTES)).values()

    live, replayed = EventReader(), EventReader()
    assert [replayed.read(event) for event in stored] == [live.read(event) for event in events]
    assert (stored == events) is (size <= MAX_SHOWN_BYTES)
    assert sum(len(event.body) for event in stored) < MAX_SHOWN_BYTES + 1000
