"""Row-level security: in the role of a unit of work, PostgreSQL isolates users whatever the login may do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy import Column, Index
from sqlalchemy.schema import ColumnCollectionConstraint

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.ports import TransactionMode
from latchkey.infrastructure.database.schema import metadata
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE, begin_sql
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.user_data import ROW_COUNT, UserData

Connection: TypeAlias = "asyncpg.Connection[Any]"

ME, YOU = Owner(UserId("me")), Owner(UserId("you"))
TABLES = list(metadata.tables)


@pytest.fixture(params=["owner with BYPASSRLS", "superuser"])
def login_url(request: pytest.FixtureRequest) -> str:
    """Two logins that row-level security does not bind by themselves."""
    url: str = request.getfixturevalue("postgresql_url" if request.param.startswith("owner") else "superuser_url")
    return url


@pytest.fixture
async def connection(login_url: str) -> AsyncIterator[Connection]:
    """To a database where both have one of everything."""
    engine = create_engine(login_url)
    for owner in (ME, YOU):
        await UserData().store(SqlUnitsOfWork(engine), owner)
    await engine.dispose()
    connection = await asyncpg.connect(login_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def opened(connection: Connection, owner: Owner, mode: TransactionMode = "write") -> AsyncIterator[None]:
    """Inside a transaction that is opened as a unit of work opens it."""
    await connection.execute(begin_sql(owner, mode, b"secret"))
    yield
    await connection.execute("ROLLBACK")


@asynccontextmanager
async def without_user(connection: Connection) -> AsyncIterator[None]:
    """Inside a transaction with the runtime role in which no user is set."""
    await connection.execute(f"BEGIN;SET LOCAL ROLE {RUNTIME_ROLE}")
    yield
    await connection.execute("ROLLBACK")


async def users_in(connection: Connection, table: str) -> set[str]:
    return {row["user_id"] for row in await connection.fetch(f"SELECT DISTINCT user_id FROM {table}")}


async def test_logins_outside_unit_of_work_see_all_users(connection: Connection) -> None:
    """So rows that the other tests cannot see are hidden by the begin statement of the unit of work."""
    for table in TABLES:
        assert await users_in(connection, table) == {"me", "you"}


@pytest.mark.parametrize("mode", ["read", "write", "exclusive"])
async def test_unit_of_work_runs_in_unprivileged_role(connection: Connection, mode: TransactionMode) -> None:
    async with opened(connection, ME, mode):
        powers = await connection.fetchrow(
            "SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = current_user"
        )
        assert powers is not None
        assert tuple(powers) == (RUNTIME_ROLE, False, False, False)
    assert await connection.fetchval("SELECT current_user = session_user")


async def test_row_level_security_hides_rows_of_other_users(connection: Connection) -> None:
    """Not to be seen, changed or deleted, in any table, by statements that forget the user altogether."""
    for table in TABLES:
        async with opened(connection, ME):
            assert await users_in(connection, table) == {"me"}
            assert await connection.execute(f"UPDATE {table} SET user_id = user_id WHERE user_id = 'you'") == "UPDATE 0"
            mine = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = 'me'")
            assert mine > 0
            assert await connection.execute(f"UPDATE {table} SET user_id = user_id") == f"UPDATE {mine}"
            await connection.execute(f"DELETE FROM {table}")
            await connection.execute("SELECT set_config('app.user_id', 'you', true)")
            assert await users_in(connection, table) == {"you"}


async def test_row_level_security_refuses_rows_of_other_users(connection: Connection) -> None:
    """Neither a new one nor one's own."""
    for table in TABLES:
        columns = ", ".join(column.name for column in metadata.tables[table].c if column.name != "user_id")
        for statement in (
            f"INSERT INTO {table} (user_id, {columns}) SELECT 'you', {columns} FROM {table}",
            f"UPDATE {table} SET user_id = 'you'",
        ):
            async with opened(connection, ME):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                    await connection.execute(statement)


async def test_runtime_role_cannot_truncate_or_alter_tables(connection: Connection) -> None:
    for table in TABLES:
        for statement in (
            f"TRUNCATE {table} CASCADE",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"DROP TABLE {table} CASCADE",
            f"CREATE POLICY mine ON {table} USING (true)",
            f"CREATE TRIGGER spy BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ):
            async with opened(connection, ME):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)


async def test_statement_without_user_setting_fails(connection: Connection) -> None:
    for table in TABLES:
        for statement in (f"SELECT FROM {table}", f"UPDATE {table} SET user_id = 'me'", f"DELETE FROM {table}"):
            async with without_user(connection):
                with pytest.raises(asyncpg.UndefinedObjectError, match=r"app\.user_id"):
                    await connection.execute(statement)


async def test_role_and_user_setting_end_with_the_transaction(connection: Connection) -> None:
    """However the transaction ends. The setting is then empty, which is no user id."""
    for end in ("COMMIT", "ROLLBACK"):
        await connection.execute(begin_sql(ME, "write", b"secret"))
        await connection.execute(end)
        assert await connection.fetchval("SELECT current_user = session_user")
        async with without_user(connection):
            for table in TABLES:
                assert await users_in(connection, table) == set()


async def test_foreign_key_does_not_reveal_rows_of_other_users(connection: Connection) -> None:
    """Foreign-key checks bypass row-level security, so every key begins with the user."""
    yours = await connection.fetchval("SELECT id FROM conversations WHERE user_id = 'you'")
    async with opened(connection, ME):
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("UPDATE turns SET conversation_id = $1", yours)


def test_every_key_begins_with_user_id() -> None:
    """Primary, unique and foreign, and every index."""
    for table in metadata.sorted_tables:
        keys: list[list[Column[Any]]] = [
            list(key.columns)
            for key in (*table.constraints, *table.indexes)
            if isinstance(key, ColumnCollectionConstraint | Index)
        ]
        assert keys
        assert {columns[0].name for columns in keys} == {"user_id"}
        for key in table.foreign_key_constraints:
            assert key.elements[0].column.name == "user_id"


async def test_concurrent_units_of_work_on_shared_connections_are_isolated(postgresql_url: str) -> None:
    """Each connection serves many people in turn, and none sees what the last one saw."""
    engine = create_engine(postgresql_url)
    units = SqlUnitsOfWork(engine)
    people = [(Owner(UserId(f"user-{n}")), UserData()) for n in range(20)]

    async def live(owner: Owner, belongings: UserData) -> None:
        await belongings.store(units, owner)
        assert len(await belongings.read_all(units, owner)) == ROW_COUNT

    await asyncio.gather(*(live(*person) for person in people))
    await engine.dispose()
