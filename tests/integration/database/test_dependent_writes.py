"""Two writes of one row in one unit of work take effect in the order in which they were written, on both databases.

Waiting writes are sent as one `WITH` statement, in which PostgreSQL would silently lose the second of them.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, update

from latchkey.domain.credentials import Owner, TokenSecret, UserId
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.quota import QuotaUsage
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.session import Session, insert_for_user, owned_by_user
from latchkey.infrastructure.database.unit_of_work import SqlUnitOfWork, SqlUnitsOfWork
from tests.builders import LONG, NOW, a_context_token, a_conversation, a_task, a_turn, an_artifact

OWNER = Owner(UserId("ada"))
MAX_CALLS = 10

_INSERT = insert_for_user(tasks)
_SET_TITLE = update(tasks).where(owned_by_user(tasks))
_SET_VERSION = update(tasks).where(owned_by_user(tasks))
_DELETE = delete(tasks).where(owned_by_user(tasks))


@pytest.fixture
async def units(database_url: str) -> AsyncIterator[SqlUnitsOfWork]:
    engine = create_engine(database_url)
    yield SqlUnitsOfWork(engine)
    await engine.dispose()


def session_of(uow: SqlUnitOfWork) -> Session:
    return uow.session


async def stored(units: SqlUnitsOfWork) -> list[tuple[str, int]]:
    async with units.open(OWNER, "read") as uow:
        rows = await session_of(uow).fetch(
            tasks.select().with_only_columns(tasks.c.title, tasks.c.version).where(owned_by_user(tasks))
        )
        return [tuple(row) for row in rows]


def row(**values: Any) -> dict[str, Any]:
    task = a_task("inserted", **values)
    return {field: getattr(task, field) for field in task.__struct_fields__}


async def test_insert_then_update_of_one_row_keeps_the_update(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).defer(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")
        await uow.commit()

    assert await stored(units) == [("updated", 1)]


async def test_two_updates_of_one_row_are_both_kept(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).execute(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")
        await session_of(uow).defer(_SET_VERSION, version=7)
        await uow.commit()

    assert await stored(units) == [("updated", 7)]


async def test_deferred_then_executed_update_of_one_row_are_both_kept(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).execute(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")
        assert await session_of(uow).execute(_SET_VERSION, version=7) == 1
        await uow.commit()

    assert await stored(units) == [("updated", 7)]


async def test_insert_then_delete_of_one_row_leaves_no_row(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).defer(_INSERT, **row())
        assert await session_of(uow).execute(_DELETE) == 1
        await uow.commit()

    assert await stored(units) == []


async def test_update_then_delete_of_one_row_leaves_no_row(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).execute(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")
        assert await session_of(uow).execute(_DELETE) == 1
        await uow.commit()

    assert await stored(units) == []


async def test_update_then_insert_into_one_table_updates_only_the_rows_before(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).execute(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")
        await session_of(uow).defer(_INSERT, **row())
        await uow.commit()

    assert sorted(await stored(units)) == [("inserted", 1), ("updated", 1)]


async def test_writes_that_wait_are_lost_by_rollback(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await session_of(uow).defer(_INSERT, **row())
        await session_of(uow).defer(_SET_TITLE, title="updated")

    assert await stored(units) == []


async def test_task_added_and_replaced_and_removed_in_one_unit_of_work(units: SqlUnitsOfWork) -> None:
    kept, removed = a_task("kept"), a_task("removed")
    async with units.open(OWNER, "write") as uow:
        for task in (kept, removed):
            await uow.tasks.add(task)
        await uow.tasks.update(replace(kept, title="replaced", version=2))
        await uow.tasks.delete(removed.id)
        await uow.commit()

    assert await stored(units) == [("replaced", 2)]


async def test_context_token_added_and_revoked_with_its_turn_is_unauthenticated(units: SqlUnitsOfWork) -> None:
    conversation = a_conversation()
    turn, secret = a_turn(conversation), TokenSecret.mint(OWNER.user_id)
    async with units.open(OWNER, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.context_tokens.add(a_context_token(turn_id=turn.id, expires_at=NOW + LONG), secret)
        await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
        await uow.commit()

    with pytest.raises(Unauthenticated):
        async with units.open(secret, "read"):
            pass


async def test_context_token_extended_and_revoked_is_unauthenticated(units: SqlUnitsOfWork) -> None:
    conversation = a_conversation()
    turn, secret = a_turn(conversation), TokenSecret.mint(OWNER.user_id)
    async with units.open(OWNER, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.context_tokens.add(a_context_token(turn_id=turn.id, expires_at=NOW + LONG), secret)
        await uow.commit()
    async with units.open(OWNER, "write") as uow:
        await uow.context_tokens.extend_for_turn(turn.id, NOW + 2 * LONG, uow.now)
        await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
        await uow.commit()

    with pytest.raises(Unauthenticated):
        async with units.open(secret, "read"):
            pass


async def test_turn_added_and_two_tool_calls_counted_in_one_unit_of_work(units: SqlUnitsOfWork) -> None:
    conversation = a_conversation()
    turn = a_turn(conversation)
    async with units.open(OWNER, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        numbers = [await uow.turns.count_tool_call(turn.id, uow.now, 2, MAX_CALLS) for _ in range(2)]
        await uow.commit()

    async with units.open(OWNER, "read") as uow:
        assert (numbers, (await uow.turns.get(turn.id)).last_event) == ([1, 3], 4)


async def test_conversation_added_and_numbered_twice_in_one_unit_of_work(units: SqlUnitsOfWork) -> None:
    conversation = a_conversation()
    async with units.open(OWNER, "write") as uow:
        await uow.conversations.add(conversation)
        for seq in (4, 5):
            await uow.conversations.set_last_seq(conversation.id, seq, uow.now)
        await uow.commit()

    async with units.open(OWNER, "write") as uow:
        assert (await uow.conversations.next_message(conversation.id, uow.now)).seq == 6


async def test_conversation_added_and_removed_in_one_unit_of_work_is_not_found(units: SqlUnitsOfWork) -> None:
    conversation = a_conversation()
    async with units.open(OWNER, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(a_turn(conversation))
        await uow.conversations.delete(conversation.id, uow.now)
        await uow.commit()

    async with units.open(OWNER, "read") as uow:
        with pytest.raises(NotFound):
            await uow.conversations.get(conversation.id)


async def test_artifact_version_of_turn_added_in_the_same_unit_of_work(units: SqlUnitsOfWork) -> None:
    """SQLite checks a foreign key at each statement, so the turn is inserted before the artifact is updated."""
    conversation, artifact = a_conversation(), an_artifact()
    turn = a_turn(conversation)
    async with units.open(OWNER, "write") as uow:
        await uow.artifacts.add(artifact, "# Groceries")
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.artifacts.add_version(replace(artifact, version=2, turn_id=turn.id), "# More groceries")
        await uow.commit()

    async with units.open(OWNER, "read") as uow:
        assert (await uow.artifacts.get(artifact.id)).turn_id == turn.id


async def test_quota_usage_added_and_replaced_twice_in_one_unit_of_work(units: SqlUnitsOfWork) -> None:
    async with units.open(OWNER, "write") as uow:
        await uow.quota_usage.add(QuotaUsage(NOW, 1, NOW))
        for stored_bytes in (2, 3):
            await uow.quota_usage.update(QuotaUsage(NOW, stored_bytes, NOW))
        await uow.commit()

    async with units.open(OWNER, "write") as uow:
        assert await uow.quota_usage.get() == QuotaUsage(NOW, 3, NOW)
