"""Contract of the conversation repository."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from latchkey.domain.conversation import Conversation, LastMessage
from latchkey.domain.credentials import Owner, TokenSecret
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from tests.builders import NOW, a_context_token, a_conversation, a_message, a_task, a_tool_call, a_turn, an_artifact
from tests.contract.database.conftest import Replica
from tests.contract.database.pagination import assert_pages, assert_refuses


async def add(units: UnitsOfWork, owner: Owner, *conversations: Conversation) -> None:
    async with units.open(owner, "write") as uow:
        for conversation in conversations:
            await uow.conversations.add(conversation)
        await uow.commit()


@pytest.mark.parametrize("title", [None, "🛒 it's \\ 買"])
async def test_conversation_round_trip(units: UnitsOfWork, me: Owner, title: str | None) -> None:
    conversation = a_conversation(title)
    await add(units, me, conversation)

    async with units.open(me, "write") as uow:
        assert await uow.conversations.get(conversation.id) == conversation
        changed = replace(conversation, title="Other", updated_at=NOW + timedelta(seconds=1))
        await uow.conversations.update(changed)
        assert await uow.conversations.get(conversation.id, for_update=True) == changed


async def test_conversation_pagination_newest_activity_first(units: UnitsOfWork, me: Owner) -> None:
    """With equal times the newest id comes first, so the order is total."""
    ages = [3, 1, 1, 1, 2, 0, 0]
    made = [a_conversation(updated_at=NOW - timedelta(microseconds=age)) for age in ages]
    await add(units, me, *made)

    async with units.open(me, "read") as uow:
        await assert_pages(
            uow.conversations.page, sorted(made, key=lambda item: (item.updated_at, item.id), reverse=True)
        )


async def test_conversation_activity_moves_it_to_front_of_list(units: UnitsOfWork, me: Owner) -> None:
    old, new = a_conversation("Old"), a_conversation("New")
    await add(units, me, old, new)
    async with units.open(me, "write") as uow:
        await uow.conversations.next_message(old.id, NOW + timedelta(seconds=1))
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert [item.title for item in (await uow.conversations.page(Window())).items] == ["Old", "New"]
        assert (await uow.conversations.get(old.id)).updated_at == NOW + timedelta(seconds=1)


async def test_conversation_cursor_of_another_listing_is_refused(units: UnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.tasks.add(a_task())
        foreign = (await uow.tasks.page(None, Window(1))).next_cursor
        await assert_refuses(uow.conversations.page, foreign)


async def test_concurrent_message_numbers_have_no_gaps(replica: Replica, me: Owner) -> None:
    """Many writers in two processes, of which every third rolls back."""
    processes = [replica(), replica()]
    conversation = a_conversation()
    await add(processes[0], me, conversation)

    async def take(n: int) -> int | None:
        async with processes[n % 2].open(me, "write") as uow:
            seq = (await uow.conversations.next_message(conversation.id, uow.now)).seq
            if n % 3 == 0:
                return None
            await uow.commit()
            return seq

    taken = await asyncio.gather(*(take(n) for n in range(30)))
    assert sorted(seq for seq in taken if seq) == list(range(1, 21))


async def test_message_numbers_continue_after_initial_ones(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation, messages=3)
        assert (await uow.conversations.next_message(conversation.id, uow.now)).seq == 4


async def test_client_name_of_a_deleted_conversation_is_free_before_its_rows_are_removed(
    units: UnitsOfWork, me: Owner
) -> None:
    first, second = (a_conversation(client_conversation_id="chat-7") for _ in range(2))
    await add(units, me, first)
    async with units.open(me, "write") as uow:
        await uow.conversations.delete(first.id, NOW)
        await uow.commit()
    await add(units, me, second)

    async with units.open(me, "read") as uow:
        assert await uow.conversations.find_id("chat-7") == second.id


async def test_deleted_conversation_takes_everything_but_tasks(units: UnitsOfWork, me: Owner) -> None:
    """The tasks stay, without a conversation; the token of the conversation is revoked."""
    gone, kept = a_conversation(), a_conversation("Kept")
    turns = [a_turn(gone), a_turn(kept)]
    task = a_task(conversation_id=gone.id)
    artifacts = {one.id: an_artifact(conversation_id=one.id) for one in (gone, kept)}
    secret = TokenSecret.mint(me.user_id)
    async with units.open(me, "write") as uow:
        for conversation, turn in zip((gone, kept), turns, strict=True):
            await uow.conversations.add(conversation, messages=1)
            await uow.turns.add(turn)
            await uow.messages.add(a_message(turn, 1))
            await uow.tool_calls.add(a_tool_call(), turn.id)
            await uow.artifacts.add(artifacts[conversation.id], "")
        await uow.tasks.add(task)
        token = a_context_token(conversation_id=gone.id, turn_id=turns[0].id)
        await uow.context_tokens.add(token, secret)
        await uow.commit()

    async with units.open(me, "write") as uow:
        await uow.conversations.delete(gone.id, uow.now)
        assert not await uow.deletions.remove_part(100)
        await uow.commit()

    async with units.open(me, "read") as uow:
        (remaining,) = (await uow.conversations.page(Window())).items
        assert (remaining.id, remaining.running_turn_id) == (kept.id, turns[1].id)
        assert await uow.turns.list_running() == [turns[1]]
        assert (await uow.messages.page(gone.id, Window(), "asc")).items == []
        assert len((await uow.messages.page(kept.id, Window(), "asc")).items) == 1
        assert [len(await uow.tool_calls.list_of_turn(turn.id)) for turn in turns] == [0, 1]
        assert (await uow.tasks.page(None, Window())).items == [replace(task, conversation_id=None)]
        assert (await uow.artifacts.page(None, None, Window())).items == [artifacts[kept.id]]
        assert (await uow.context_tokens.page(Window())).items == []
        with pytest.raises(NotFound):
            await uow.turns.get(turns[0].id)
    with pytest.raises(Unauthenticated):
        async with units.open(secret, "read"):
            raise AssertionError


async def test_conversation_has_its_last_message_and_running_turn(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    """Every read returns them. The text of the message is cut by characters, not by bytes."""
    conversation, other = a_conversation(), a_conversation("Other")
    first, second = a_turn(conversation, status="completed"), a_turn(conversation)
    last = a_message(second, 3, "🛒買" * 150)
    shown = LastMessage(last.id, "user", "🛒買" * 100, NOW)
    await add(units, me, other)
    await add(units, you, a_conversation("Yours"))
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation, messages=3)
        for turn in (first, second):
            await uow.turns.add(turn)
        for message in (a_message(first, 1), a_message(first, 2, "Done.", role="assistant"), last):
            await uow.messages.add(message)
        await uow.commit()

    expected = replace(conversation, last_message=shown, running_turn_id=second.id)
    async with units.open(me, "write") as uow:
        assert (await uow.conversations.page(Window())).items == [other, expected]
        assert await uow.conversations.get(conversation.id) == expected
        assert await uow.conversations.get(conversation.id, for_update=True) == expected
        assert await uow.conversations.find_id(str(conversation.id)) == conversation.id
        await uow.conversations.update(replace(expected, title="Renamed"))
        assert await uow.conversations.get(conversation.id) == replace(expected, title="Renamed")
    async with units.open(you, "read") as uow:
        (yours,) = (await uow.conversations.page(Window())).items
        assert (yours.last_message, yours.running_turn_id) == (None, None)


async def test_conversation_with_a_lost_turn_has_no_running_turn(units: UnitsOfWork, me: Owner) -> None:
    """The process of the turn is gone, whether or not this is stored yet."""
    conversation = a_conversation()
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(a_turn(conversation, lease_until=uow.now - timedelta(seconds=1)))
        assert (await uow.conversations.get(conversation.id)).running_turn_id is None


async def test_conversation_remembers_its_last_timezone(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation, timezone="Europe/Berlin")
        await uow.commit()
    async with units.open(me, "write") as uow:
        await uow.conversations.update(replace(conversation, title="Shopping"))
        taken = [
            await uow.conversations.next_message(conversation.id, uow.now, zone) for zone in (None, "Asia/Tokyo", None)
        ]

    assert [(each.seq, each.timezone) for each in taken] == [(1, "Europe/Berlin"), (2, "Asia/Tokyo"), (3, "Asia/Tokyo")]
