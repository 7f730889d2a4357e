"""Tenant isolation: rows outside the scope cannot be read, changed, deleted, counted or told from missing ones."""

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from latchkey.domain.credentials import Owner, TokenSecret, UserId
from latchkey.domain.errors import Conflict, NotFound, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork, UnitsOfWork
from tests.builders import NOW, a_context_token, a_message, a_task, a_tool_call, a_turn, an_artifact
from tests.user_data import ROW_COUNT, UserData

Attempt = Callable[[UnitOfWork, UserData], Awaitable[object]]

ATTEMPTS: dict[str, Attempt] = {
    "get conversation": lambda uow, of: uow.conversations.get(of.conversation.id),
    "lock conversation": lambda uow, of: uow.conversations.get(of.conversation.id, for_update=True),
    "replace conversation": lambda uow, of: uow.conversations.update(replace(of.conversation, title="Taken over")),
    "replace messages": lambda uow, of: uow.messages.replace(of.conversation.id, of.turn.id, of.turn.id),
    "number conversation": lambda uow, of: uow.conversations.next_message(of.conversation.id, NOW),
    "remove conversation": lambda uow, of: uow.conversations.delete(of.conversation.id, NOW),
    "get turn": lambda uow, of: uow.turns.get(of.turn.id),
    "get turn with message": lambda uow, of: uow.turns.get_with_message(of.turn.id),
    "lock turn": lambda uow, of: uow.turns.get(of.turn.id, for_update=True),
    "replace turn": lambda uow, of: uow.turns.update(replace(of.turn, status="cancelled")),
    "get task": lambda uow, of: uow.tasks.get(of.task.id),
    "lock task": lambda uow, of: uow.tasks.get(of.task.id, for_update=True),
    "replace task": lambda uow, of: uow.tasks.update(replace(of.task, title="Taken over")),
    "remove task": lambda uow, of: uow.tasks.delete(of.task.id),
    "get artifact": lambda uow, of: uow.artifacts.get(of.artifact.id),
    "lock artifact": lambda uow, of: uow.artifacts.get(of.artifact.id, for_update=True),
    "read artifact": lambda uow, of: uow.artifacts.get_content(of.artifact.id, None),
    "read artifact version": lambda uow, of: uow.artifacts.get_content(of.artifact.id, 1),
    "list artifact versions": lambda uow, of: uow.artifacts.list_versions(of.artifact.id, Window()),
    "revise artifact": lambda uow, of: uow.artifacts.add_version(replace(of.artifact, version=2), "Taken over"),
    "remove artifact": lambda uow, of: uow.artifacts.delete(of.artifact.id, NOW),
    "get token": lambda uow, of: uow.context_tokens.get(of.token.id),
    "revoke token": lambda uow, of: uow.context_tokens.revoke(of.token.id, NOW),
}


async def refusal(units: UnitsOfWork, owner: Owner, attempt: Attempt, belongings: UserData) -> str:
    with pytest.raises(NotFound) as refused:  # noqa: PT012 # a unit of work is one thing
        async with units.open(owner, "write") as uow:
            await attempt(uow, belongings)
            await uow.commit()
    return refused.value.detail


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_tenant_isolation_other_users_rows_are_not_found(
    units: UnitsOfWork, me: Owner, you: Owner, attempt: Attempt
) -> None:
    """The error is the same, word for word, as for rows that do not exist; nothing is changed."""
    mine, nowhere = UserData(), UserData()
    await mine.store(units, me)
    before = await mine.read_all(units, me)

    assert await refusal(units, you, attempt, mine) == await refusal(units, you, attempt, nowhere)
    assert await mine.read_all(units, me) == before


async def test_tenant_isolation_of_pages_and_counts(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    mine, yours = UserData(), UserData()
    await mine.store(units, me)
    alone = await mine.read_all(units, me)
    await yours.store(units, you)

    assert await mine.read_all(units, me) == alone
    assert len(alone) == len(await yours.read_all(units, you)) == ROW_COUNT
    assert await yours.read_all(units, Owner(UserId("nobody"))) == []


async def test_tenant_isolation_of_revoke_and_extend(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    """Another user's turn id matches no token, so nothing is raised and the token stays valid."""
    mine = UserData()
    secret = TokenSecret.mint(me.user_id)
    await mine.store(units, me)
    async with units.open(me, "write") as uow:
        await uow.context_tokens.add(a_context_token(turn_id=mine.turn.id), secret)
        await uow.commit()

    async with units.open(you, "write") as uow:
        await uow.context_tokens.revoke_for_turn(mine.turn.id, NOW)
        await uow.context_tokens.extend_for_turn(mine.turn.id, NOW, NOW)
        await uow.commit()

    async with units.open(secret, "write") as uow:
        assert uow.scope.turn_id == mine.turn.id


async def test_tenant_isolation_allows_same_id_for_two_users(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    """So that not even an id conflict tells one user about the other."""
    same = UserData()
    await same.store(units, me)
    await same.store(units, you)
    async with units.open(you, "write") as uow:
        await uow.tasks.update(replace(same.task, title="Yours"))
        await uow.conversations.delete(same.conversation.id, NOW)
        await uow.deletions.remove_part(100)
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert await uow.tasks.get(same.task.id) == same.task
    assert len(await same.read_all(units, me)) == ROW_COUNT


@pytest.mark.parametrize("part", ["turn", "message", "artifact", "turn's artifact", "tool call", "event", "token"])
async def test_tenant_isolation_of_foreign_keys(units: UnitsOfWork, me: Owner, you: Owner, part: str) -> None:
    """A turn in another user's conversation, a message in another user's turn: the parent is not found."""
    mine = UserData()
    await mine.store(units, me)
    before = await mine.read_all(units, me)

    with pytest.raises((NotFound, Conflict)):  # noqa: PT012 # a unit of work is one thing
        async with units.open(you, "write") as uow:
            if part == "turn":
                await uow.turns.add(a_turn(mine.conversation))
            elif part == "message":
                await uow.messages.add(a_message(mine.turn, 2))
            elif part == "artifact":
                await uow.artifacts.add(an_artifact(conversation_id=mine.conversation.id), "")
            elif part == "turn's artifact":
                await uow.artifacts.add(an_artifact(turn_id=mine.turn.id), "")
            elif part == "tool call":
                await uow.tool_calls.add(a_tool_call(), mine.turn.id)
            elif part == "event":
                await uow.turn_events.add(replace(mine.event, seq=2))
            else:
                token = a_context_token(conversation_id=mine.conversation.id)
                await uow.context_tokens.add(token, TokenSecret.mint(you.user_id))
            await uow.commit()
    assert await mine.read_all(units, me) == before


@pytest.mark.parametrize("name", ["a'b", "a;b", "a\\b", "", ".", "x" * 129, "a b", "a\x00b", "é"])
async def test_invalid_user_id_is_unauthenticated(units: UnitsOfWork, name: str) -> None:
    """Even if an identity provider accepted it."""
    with pytest.raises(Unauthenticated):  # noqa: PT012 # a unit of work is one thing
        async with units.open(Owner(UserId(name)), "write") as uow:
            await uow.tasks.add(a_task())
            await uow.commit()


@pytest.mark.parametrize("name", ["A-Za-z0-9._~:@|+-", "x" * 128, "auth0|123", "...."])
async def test_every_valid_user_id_opens_its_own_scope(units: UnitsOfWork, name: str) -> None:
    async with units.open(Owner(UserId(name)), "exclusive") as uow:
        await uow.tasks.add(a_task())
        await uow.commit()
    async with units.open(Owner(UserId(name)), "read") as uow:
        assert len((await uow.tasks.page(None, Window())).items) == 1
