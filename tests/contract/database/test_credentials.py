"""Credentials: an owner has access to all their data, a context token to what it was minted for, until it ends."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from latchkey.domain.conversation import LastMessage
from latchkey.domain.credentials import (
    ARTIFACTS_WRITE,
    TASKS_READ,
    TASKS_WRITE,
    ContextToken,
    Owner,
    Scope,
    TokenSecret,
    UserId,
)
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.ports import TransactionMode, UnitsOfWork
from latchkey.domain.turn_repositories import TurnWithCalls
from tests.builders import NOW, a_context_token, a_conversation, a_message, a_task, a_turn
from tests.contract.database.conftest import Replica

MODES: list[TransactionMode] = ["read", "write", "exclusive"]


async def minted(units: UnitsOfWork, owner: Owner, token: ContextToken) -> TokenSecret:
    secret = TokenSecret.mint(owner.user_id)
    async with units.open(owner, "write") as uow:
        await uow.context_tokens.add(token, secret)
        await uow.commit()
    return secret


@pytest.mark.parametrize("mode", MODES)
async def test_owner_scope_has_all_grants(units: UnitsOfWork, me: Owner, mode: TransactionMode) -> None:
    async with units.open(me, mode) as uow:
        assert uow.scope == Scope(me.user_id)
        assert uow.scope.allows(TASKS_WRITE)


@pytest.mark.parametrize("mode", MODES)
async def test_context_token_scope_is_what_it_was_minted_for(
    units: UnitsOfWork, replica: Replica, me: Owner, mode: TransactionMode
) -> None:
    """In every process: tokens are stored only in the database."""
    conversation = a_conversation()
    turn = a_turn(conversation)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.commit()
    token = a_context_token(grants=[ARTIFACTS_WRITE], conversation_id=conversation.id, turn_id=turn.id)
    secret = await minted(units, me, token)

    for process in (units, replica()):
        async with process.open(secret, mode) as uow:
            assert uow.scope == Scope(
                user_id=me.user_id,
                grants=frozenset([ARTIFACTS_WRITE]),
                token_id=token.id,
                conversation_id=conversation.id,
                turn_id=turn.id,
            )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tools", [None, [], ["add_task"], ["list_tasks", "add_task"]])
async def test_context_token_scope_has_the_tools_it_was_minted_for(
    units: UnitsOfWork, replica: Replica, me: Owner, tools: list[str] | None, mode: TransactionMode
) -> None:
    secret = TokenSecret.mint(me.user_id)
    async with units.open(me, "write") as uow:
        await uow.context_tokens.add(a_context_token(), secret, tools)
        await uow.commit()

    async with replica().open(secret, mode) as uow:
        assert uow.scope.tools == (None if tools is None else frozenset(tools))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", ["expired", "revoked", "expiring this moment"])
async def test_expired_or_revoked_token_is_unauthenticated(
    units: UnitsOfWork, me: Owner, state: str, mode: TransactionMode
) -> None:
    async with units.open(me, "read") as uow:
        now = uow.now
    states = {
        "expired": a_context_token(expires_at=NOW - timedelta(days=1)),
        "expiring this moment": a_context_token(expires_at=now),
        "revoked": a_context_token(revoked_at=now),
    }
    secret = await minted(units, me, states[state])

    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        async with units.open(secret, mode):
            raise AssertionError


@pytest.mark.parametrize("mode", MODES)
async def test_forged_tokens_are_unauthenticated(
    units: UnitsOfWork, me: Owner, you: Owner, mode: TransactionMode
) -> None:
    """Only the user part is right, or only the random part, or one character differs."""
    secret = await minted(units, me, a_context_token())
    random_part, user_part = secret.text[:46], secret.text[46:]
    yours = TokenSecret.mint(you.user_id)
    forgeries = [
        TokenSecret.mint(me.user_id).text,
        random_part + yours.text[46:],
        yours.text[:46] + user_part,
        random_part[:-1] + ("A" if random_part[-1] != "A" else "B") + user_part,
        secret.text + "=",
        secret.text.replace("lk_", "lk-", 1),
        secret.text.upper(),
    ]
    for forgery in forgeries:
        with pytest.raises(Unauthenticated):
            async with units.open(TokenSecret.parse(forgery), mode):
                raise AssertionError


def test_token_secret_parse_reads_the_minted_text() -> None:
    minted_secret = TokenSecret.mint(UserId("auth0|ada"))

    assert TokenSecret.parse(minted_secret.text) == minted_secret
    assert minted_secret.user_id == "auth0|ada"


RANDOM = "A" * 43
GARBAGE = {
    "nothing": "",
    "a prefix": "lk_",
    "too short": "lk_short",
    "random without a user": f"lk_{RANDOM}",
    "a user who cannot be": f"lk_{RANDOM}Lg",
    "a user who never was": f"lk_{RANDOM}bm9ib2R5",
    "endless": "lk_" + "A" * 100_000,
    "no base64": f"lk_{RANDOM}é",
    "NUL": "\x00" * 80,
    "lone surrogates": "lk_" + "\ud800" * 60,
    "base64 of no text": f"lk_{RANDOM}_____w",
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE)
async def test_malformed_tokens_are_unauthenticated(units: UnitsOfWork, text: str) -> None:
    for mode in MODES:
        with pytest.raises(Unauthenticated):
            async with units.open(TokenSecret.parse(text), mode):
                raise AssertionError


async def test_context_token_isolation_between_users(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    secret = await minted(units, me, a_context_token())
    task = a_task()
    async with units.open(you, "write") as uow:
        await uow.tasks.add(task)
        await uow.commit()

    async with units.open(secret, "read") as uow:
        assert (await uow.tasks.page(None, Window())).items == []
        with pytest.raises(NotFound):
            await uow.tasks.get(task.id)


async def test_unknown_grant_of_later_release_is_kept(units: UnitsOfWork, me: Owner) -> None:
    """A later release, or another app, made the token: here its unknown grant opens nothing."""
    token = a_context_token(grants=["tasks:read", "moon:land"])
    secret = await minted(units, me, token)

    async with units.open(secret, "read") as uow:
        assert uow.scope.grants == {TASKS_READ, "moon:land"}
        assert [uow.scope.allows(grant) for grant in (TASKS_READ, TASKS_WRITE)] == [True, False]


async def test_conversation_token_isolation_of_conversations(units: UnitsOfWork, me: Owner) -> None:
    """It reads only that conversation, but all to-do tasks: those belong to the user."""
    inside, outside = a_conversation("Inside"), a_conversation("Outside")
    turns = {conversation.id: a_turn(conversation) for conversation in (inside, outside)}
    message = a_message(turns[inside.id], 1)
    last_message = LastMessage(message.id, message.role, message.content, message.created_at)
    shown = replace(inside, last_message=last_message, running_turn_id=turns[inside.id].id)
    task = a_task(conversation_id=outside.id)
    async with units.open(me, "write") as uow:
        for conversation in (inside, outside):
            await uow.conversations.add(conversation, messages=1)
            await uow.turns.add(turns[conversation.id])
        for first in (message, a_message(turns[outside.id], 1)):
            await uow.messages.add(first)
        await uow.tasks.add(task)
        await uow.commit()
    secret = await minted(units, me, a_context_token(conversation_id=inside.id))

    async with units.open(secret, "read") as uow:
        assert (await uow.conversations.page(Window())).items == [shown]
        assert await uow.conversations.get(inside.id) == shown
        assert len((await uow.messages.page(inside.id, Window(), "asc")).items) == 1
        assert (await uow.turns.page(inside.id, Window())).items == [TurnWithCalls(turns[inside.id], [])]
        assert await uow.turns.get(turns[inside.id].id) == turns[inside.id]
        assert (await uow.tasks.page(None, Window())).items == [task]
        for hidden in (
            uow.conversations.get(outside.id),
            uow.messages.page(outside.id, Window(), "asc"),
            uow.messages.history(outside.id, 10, 10_000),
            uow.turns.page(outside.id, Window()),
            uow.turns.get(turns[outside.id].id),
            uow.turns.get_with_message(turns[outside.id].id),
            uow.turns.page_with_messages(str(outside.id), 10),
            uow.turns.find_by_message(outside.id, "m1"),
        ):
            with pytest.raises(NotFound, match=r"There is no such (conversation|turn)\."):
                await hidden
        names = [await uow.conversations.find_id(str(conversation.id)) for conversation in (inside, outside)]
        assert names == [inside.id, None]
    async with units.open(secret, "write") as uow:
        for write in (
            uow.conversations.next_message(outside.id, NOW),
            uow.conversations.delete(outside.id, NOW),
            uow.conversations.update(outside),
            uow.turns.update(turns[outside.id]),
            uow.messages.replace(outside.id, turns[outside.id].id, turns[outside.id].id),
        ):
            with pytest.raises(NotFound, match=r"There is no such (conversation|turn)\."):
                await write


async def test_token_secret_redaction_in_repr(units: UnitsOfWork) -> None:
    """Neither in error texts nor in the `repr` of objects that hold it."""
    secret = TokenSecret.mint(UserId("me"))
    with pytest.raises(Unauthenticated) as refused:
        async with units.open(secret, "write"):
            raise AssertionError

    assert secret.text not in repr(refused.value)
    assert secret.text not in repr(secret)
