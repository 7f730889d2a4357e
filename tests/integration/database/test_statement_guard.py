"""The tenant guard on engines and sessions: no unpinned statement, and no other user bound."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import ClauseElement, bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from latchkey.domain.credentials import Owner, UserId
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.session import owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.user_data import UserData

REFUSED: dict[str, tuple[Any, Any]] = {
    "not pinned": (select(tasks.c.id), {USER: "me"}),
    "text": (text("SELECT id FROM tasks WHERE user_id = :scope_user"), {USER: "me"}),
    "a change of the schema": (CreateTable(tasks), None),
    "no user": (select(tasks.c.id).where(owned_by_user(tasks)), {}),
    "no user at all": (select(tasks.c.id).where(owned_by_user(tasks)), None),
    "an empty user": (select(tasks.c.id).where(owned_by_user(tasks)), {USER: ""}),
    "nobody": (select(tasks.c.id).where(owned_by_user(tasks)), {USER: None}),
    "given away": (update(tasks).where(owned_by_user(tasks)), {USER: "me", "user_id": "you"}),
    "one of several without a user": (
        update(tasks).where(owned_by_user(tasks)),
        [{USER: "me", "version": 2}, {"version": 2}],
    ),
    "one of several given away": (update(tasks).where(owned_by_user(tasks)), [{USER: "me", "user_id": "you"}] * 2),
}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(database_url)
    for name in ("me", "you"):
        await UserData().store(SqlUnitsOfWork(engine), Owner(UserId(name)))
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@pytest.mark.parametrize(("statement", "parameters"), REFUSED.values(), ids=REFUSED)
async def test_engine_refuses_unscoped_statement_before_sending(
    connection: AsyncConnection, statement: ClauseElement, parameters: Any
) -> None:
    with pytest.raises(UnscopedStatement):
        await connection.execute(statement, parameters)  # type: ignore[call-overload] # and some are none of its kind

    owners = await connection.exec_driver_sql("SELECT user_id FROM tasks ORDER BY user_id")
    assert list(owners.scalars()) == ["me", "you"]


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (select(tasks.c.id), {}),
        (select(tasks.c.id).where(tasks.c.user_id == bindparam("whose")), {"whose": "you"}),
        (update(tasks).where(owned_by_user(tasks)), {"user_id": "you"}),
        (text("SELECT id FROM tasks WHERE user_id = :scope_user"), {}),
    ],
    ids=["not pinned", "pinned to another", "given away", "text"],
)
async def test_session_refuses_unscoped_statement(database_url: str, statement: Any, values: dict[str, Any]) -> None:
    """Sessions bypass the engine, and prepare no statement that the guard refuses."""
    engine = create_engine(database_url)
    units = SqlUnitsOfWork(engine)
    async with units.open(Owner(UserId("me")), "write") as uow:
        session = uow.tasks._session  # type: ignore[attr-defined] # the session of the repository
        for _ in range(2):
            with pytest.raises(UnscopedStatement):
                await session.fetch(statement, **values)
    await engine.dispose()


async def test_session_cannot_bind_another_user(database_url: str) -> None:
    """Not even by the name of the parameter: the session sets the scope's user last."""
    engine = create_engine(database_url)
    units = SqlUnitsOfWork(engine)
    for name in ("me", "you"):
        await UserData().store(units, Owner(UserId(name)))
    async with units.open(Owner(UserId("me")), "read") as uow:
        session = uow.tasks._session  # type: ignore[attr-defined] # the session of the repository
        for _ in range(2):
            found = await session.fetch(select(tasks.c.user_id).where(owned_by_user(tasks)), **{USER: "you"})
            assert [row[0] for row in found] == ["me"]
    await engine.dispose()


async def test_tenant_guard_isolates_users_without_row_level_security(connection: AsyncConnection) -> None:
    """On PostgreSQL too: row-level security does not apply to the login of this connection."""
    found = await connection.execute(select(tasks.c.user_id).where(owned_by_user(tasks)), {USER: "me"})

    assert list(found.scalars()) == ["me"]
