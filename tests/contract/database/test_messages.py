"""Contract of the message repository, and of the history for the model."""

import pytest
from msgspec.structs import replace

from latchkey.domain.conversation import Conversation
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork, UnitsOfWork
from tests.builders import a_conversation, a_message, a_task, a_tool_call, a_turn
from tests.contract.database.pagination import assert_pages, assert_refuses
from tests.contract.database.test_tasks import TEXTS


class StoredConversation:
    """A conversation with turns; those listed in `unanswered` have no answer."""

    def __init__(self, turns: int, *, unanswered: tuple[int, ...] = (), calls: int = 2) -> None:
        self.conversation: Conversation = a_conversation()
        self.messages: list[Message] = []
        self.history: list[PastTurn] = []
        self.turns = [a_turn(self.conversation, status="completed") for _ in range(turns)]
        self.calls = {turn.id: [a_tool_call(f"tool {n}") for n in range(calls)] for turn in self.turns}
        for n, turn in enumerate(self.turns, 1):
            answer = None if n in unanswered else f"Answer {n}"
            self._add(a_message(turn, 0, f"Message {n}"))
            if answer:
                self._add(a_message(turn, 0, answer, role="assistant", tool_calls=self.calls[turn.id]))
            self.history.append(PastTurn(f"Message {n}", self.calls[turn.id], answer))

    def _add(self, message: Message) -> None:
        self.messages.append(replace(message, seq=len(self.messages) + 1))

    async def store(self, uow: UnitOfWork) -> None:
        await uow.conversations.add(self.conversation, messages=len(self.messages))
        for turn in self.turns:
            await uow.turns.add(turn)
            for call in self.calls[turn.id]:
                await uow.tool_calls.add(call, turn.id)
        for message in self.messages:
            await uow.messages.add(message)


async def stored(units: UnitsOfWork, owner: Owner, stored_conversation: StoredConversation) -> StoredConversation:
    async with units.open(owner, "write") as uow:
        await stored_conversation.store(uow)
        await uow.commit()
    return stored_conversation


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_message_round_trip(units: UnitsOfWork, me: Owner, text: str) -> None:
    conversation = a_conversation()
    turn = a_turn(conversation)
    message = a_message(turn, 1, text)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.messages.add(message)
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert (await uow.messages.page(conversation.id, Window(), "asc")).items == [message]


async def test_message_pagination_by_seq_in_both_orders(units: UnitsOfWork, me: Owner) -> None:
    """Each answer has its tool calls in order; other conversations are not included."""
    await stored(units, me, StoredConversation(2))
    stored_conversation = await stored(units, me, StoredConversation(3, unanswered=(2,)))

    async with units.open(me, "read") as uow:
        id = stored_conversation.conversation.id
        await assert_pages(lambda window: uow.messages.page(id, window, "asc"), stored_conversation.messages)
        await assert_pages(lambda window: uow.messages.page(id, window, "desc"), stored_conversation.messages[::-1])


async def test_message_cursor_of_another_listing_is_refused(units: UnitsOfWork, me: Owner) -> None:
    stored_conversation = await stored(units, me, StoredConversation(1))
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.tasks.add(a_task())
        foreign = (await uow.tasks.page(None, Window(1))).next_cursor
        await assert_refuses(
            lambda window: uow.messages.page(stored_conversation.conversation.id, window, "asc"), foreign
        )


@pytest.mark.parametrize("seq", [-1, 0, 2**31, 2**63, 2**64])
async def test_message_cursor_out_of_range_is_refused(units: UnitsOfWork, me: Owner, seq: int) -> None:
    stored_conversation = await stored(units, me, StoredConversation(1))
    async with units.open(me, "read") as uow:
        forged = Window(1).to_page([seq, seq], lambda last: ["messages", last]).next_cursor
        await assert_refuses(
            lambda window: uow.messages.page(stored_conversation.conversation.id, window, "desc"), forged
        )


async def test_message_duplicate_seq_is_refused(units: UnitsOfWork, me: Owner) -> None:
    stored_conversation = await stored(units, me, StoredConversation(1))
    with pytest.raises(Conflict):  # noqa: PT012 # a unit of work is one thing
        async with units.open(me, "write") as uow:
            await uow.messages.add(a_message(stored_conversation.turns[0], 2))
            await uow.commit()


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 6, 100])
@pytest.mark.parametrize("unanswered", [(), (1,), (2, 3), (5,), (1, 2, 3, 4, 5)], ids=str)
async def test_history_contains_whole_turns(
    units: UnitsOfWork, me: Owner, turns: int, unanswered: tuple[int, ...]
) -> None:
    """The newest turns, oldest first, each with its message, its tool calls with results, and its answer."""
    await stored(units, me, StoredConversation(1))
    stored_conversation = await stored(units, me, StoredConversation(5, unanswered=unanswered))

    async with units.open(me, "read") as uow:
        assert (
            await uow.messages.history(stored_conversation.conversation.id, turns, 10_000)
            == stored_conversation.history[-turns:]
        )


async def test_history_of_empty_conversation_is_empty(units: UnitsOfWork, me: Owner) -> None:
    async with units.open(me, "read") as uow:
        assert await uow.messages.history(a_conversation().id, 10, 10_000) == []
