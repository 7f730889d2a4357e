"""Startup checks: finds what would break the isolation of users in this database."""

from collections.abc import Iterable, Iterator
from typing import Any, Self
from uuid import uuid4

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.domain.errors import Failure
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.schema import TABLE_NAMES, tasks
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement
from latchkey.infrastructure.database.table_checks import (
    Fault,
    entity_faults,
    exists,
    quoted,
    reference_table_faults,
    user_table_faults,
)

ADD_REVISION = 'run `latchkey migrate`, or `latchkey revision -m "…"` first if no revision creates it'

_ROLE = "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = $1"

_MAY_SWITCH = "SELECT current_user, pg_has_role(current_user, $1::name, $2::text) AS may_switch"

_SCHEMA = "SELECT current_schema() AS name, has_schema_privilege($1::name, current_schema()::text, 'USAGE') AS may_use"

_PRIVILEGED_PARENTS = """
SELECT rolname FROM pg_roles AS parent
WHERE rolname <> $1 AND pg_has_role($1, parent.oid, 'MEMBER')
AND (rolsuper OR rolbypassrls OR oid IN (SELECT relowner FROM pg_class WHERE oid = ANY($2::text[]::regclass[])))
"""

_SET_USER = "SELECT set_config('app.user_id', $1, true)"
_INSERT = "INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at) VALUES ($1, $2, 0, now(), now())"

_SET_OPTION_SINCE = 16
"""The first version of PostgreSQL whose memberships have an option for SET ROLE."""


async def role_faults(connection: Any) -> list[Fault]:
    """Return the faults of the runtime role."""
    role = await connection.fetchrow(_ROLE, RUNTIME_ROLE)
    if role is None:
        login = await connection.fetchval("SELECT current_user")
        text = (
            f"The role {RUNTIME_ROLE} does not exist: run `latchkey migrate` with a login that has CREATEROLE,"
            f" or let a superuser run CREATE ROLE {RUNTIME_ROLE} NOLOGIN and GRANT {RUNTIME_ROLE} TO {login}."
        )
        return [Fault(text, f"CREATE ROLE {RUNTIME_ROLE} NOLOGIN")]
    return [*_attribute_faults(role), *await _membership_faults(connection)]


async def row_security_faults(connection: Any, schema: AppSchema = NO_APP) -> list[Fault]:
    """Return the faults of the runtime role and of row-level security. Empty if users are isolated."""
    role = await connection.fetchrow(_ROLE, RUNTIME_ROLE)
    faults = await role_faults(connection)
    if role is None:
        return faults
    faults += _schema_faults(await connection.fetchrow(_SCHEMA, RUNTIME_ROLE))
    tables, missing = await _existing_tables(connection, schema)
    faults += missing
    for name in tables:
        faults += await _table_faults(connection, name, schema)
    if not role["rolsuper"]:
        for parent in await connection.fetch(_PRIVILEGED_PARENTS, RUNTIME_ROLE, [quoted(name) for name in tables]):
            text = f"{RUNTIME_ROLE} is a member of a privileged role: REVOKE {parent['rolname']} FROM {RUNTIME_ROLE}."
            faults.append(Fault(text))
    return faults or [Fault(text) for text in await _probe_faults(connection)]


async def app_table_faults(connection: Any, schema: AppSchema) -> list[Fault]:
    """Return the faults of the app's tables that only a revision of the app, or an operator, can repair."""
    faults: list[Fault] = []
    for name in schema.table_names:
        if await exists(connection, name):
            faults += await _table_faults(connection, name, schema)
    return [fault for fault in faults if not fault.repair]


async def _existing_tables(connection: Any, schema: AppSchema) -> tuple[list[str], list[Fault]]:
    """Return the tables that exist, and a fault for each one that is missing."""
    cures = dict.fromkeys(TABLE_NAMES, "run `latchkey migrate`") | dict.fromkeys(schema.table_names, ADD_REVISION)
    tables = [name for name in cures if await exists(connection, name)]
    missing = [Fault(f"The table {name} is missing: {cure}.") for name, cure in cures.items() if name not in tables]
    return tables, missing


async def _table_faults(connection: Any, name: str, schema: AppSchema) -> list[Fault]:
    if name in {table.name for table in schema.reference_tables}:
        return await reference_table_faults(connection, name)
    if name in {table.name for table in schema.entities}:
        return await entity_faults(connection, name)
    return await user_table_faults(connection, name)


def _attribute_faults(role: asyncpg.Record) -> Iterator[Fault]:
    for privilege, keyword in {"rolcanlogin": "LOGIN", "rolsuper": "SUPERUSER", "rolbypassrls": "BYPASSRLS"}.items():
        if role[privilege]:
            repair = f"ALTER ROLE {RUNTIME_ROLE} NO{keyword}"
            yield Fault(f"{RUNTIME_ROLE} has {keyword}: {repair}.", repair)


async def _membership_faults(connection: Any) -> list[Fault]:
    has_option = connection.get_server_version().major >= _SET_OPTION_SINCE
    login = await connection.fetchrow(_MAY_SWITCH, RUNTIME_ROLE, "SET" if has_option else "MEMBER")
    if login["may_switch"]:
        return []
    text = (
        f"This login cannot switch to {RUNTIME_ROLE}: let the role that created it, or a superuser,"
        f" run GRANT {RUNTIME_ROLE} TO {login['current_user']}."
    )
    options = " WITH INHERIT FALSE, SET TRUE" if has_option else ""
    return [Fault(text, f"GRANT {RUNTIME_ROLE} TO CURRENT_USER{options}")]


def _schema_faults(schema: asyncpg.Record) -> Iterator[Fault]:
    if schema["may_use"] is False:
        repair = f'GRANT USAGE ON SCHEMA "{schema["name"]}" TO {RUNTIME_ROLE}'
        yield Fault(f"{RUNTIME_ROLE} may not use the schema: {repair}.", repair)


async def _probe_faults(connection: Any) -> list[str]:
    """Test row-level security with two users, in a transaction that is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"SET LOCAL ROLE {RUNTIME_ROLE}")
        return [*await _faults_without_user(connection), *await _faults_between_users(connection)]
    except asyncpg.InsufficientPrivilegeError as error:
        return [f"This login cannot use {RUNTIME_ROLE}: run `latchkey migrate` as this login. {error}."]
    finally:
        await transaction.rollback()


async def _faults_without_user(connection: Any) -> list[str]:
    user_id = await connection.fetchval("SELECT current_setting('app.user_id', true)")
    if user_id:
        return ["app.user_id has a default value, which would hide a missing user: ALTER ROLE or DATABASE … RESET it."]
    if user_id is None and not await _raises(connection, asyncpg.UndefinedObjectError, "SELECT FROM conversations"):
        return ["A statement without a user does not fail: check why the policies do not apply."]
    return []


async def _faults_between_users(connection: Any) -> list[str]:
    first, second = f"probe-{uuid4()}", f"probe-{uuid4()}"
    await connection.execute(_SET_USER, first)
    await connection.execute(_INSERT, first, uuid4())
    await connection.execute(_SET_USER, second)
    faults = []
    if await connection.fetchval("SELECT count(*) FROM conversations WHERE user_id = $1", first):
        faults.append("Tested: one user can read another user's conversation.")
    if not await _raises(connection, asyncpg.InsufficientPrivilegeError, _INSERT, first, uuid4()):
        faults.append("Tested: one user can add a conversation for another user.")
    return faults


async def _raises(connection: Any, error: type[Exception], statement: str, *values: object) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(statement, *values)
    except error:
        return True
    return False


_PRAGMAS = {"foreign_keys": 1, "journal_mode": "wal"}


class IsolationBroken(Failure):
    """This database does not isolate users. The text lists each fault with its remedy."""

    @classmethod
    def of(cls, faults: Iterable[str]) -> Self:
        return cls("\n".join(["The database does not isolate users:", *faults]))


async def verify(engine: AsyncEngine, schema: AppSchema = NO_APP) -> None:
    """Raises `IsolationBroken`, or the driver's error if the database cannot be reached."""
    async with engine.connect() as connection:
        faults = await _guard_faults(connection)
        if engine.dialect.name == "postgresql":
            driver_connection = (await connection.get_raw_connection()).driver_connection
            faults += [fault.text for fault in await row_security_faults(driver_connection, schema)]
        else:
            faults += await _pragma_faults(connection)
            faults += await missing_app_tables(connection, schema)
            await _check_writable(connection)
    if faults:
        raise IsolationBroken.of(faults)


async def _guard_faults(connection: AsyncConnection) -> list[str]:
    try:
        await connection.execute(select(tasks.c.id).limit(0), {USER: "nobody"})
    except UnscopedStatement:
        return []
    return ["The engine has no tenant guard: create it with `create_engine`."]


async def _check_writable(connection: AsyncConnection) -> None:
    """Raises the driver's error if the SQLite file cannot be written."""
    for statement in ("BEGIN IMMEDIATE", "PRAGMA user_version=0", "ROLLBACK"):  # the lock alone proves nothing
        await connection.exec_driver_sql(statement)


async def _pragma_faults(connection: AsyncConnection) -> list[str]:
    values = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in _PRAGMAS}
    return [
        f"SQLite's {name} is {values[name]} instead of {expected}: use a file on a local disk and `create_engine`."
        for name, expected in _PRAGMAS.items()
        if values[name] != expected
    ]


async def missing_app_tables(connection: AsyncConnection, schema: AppSchema) -> list[str]:
    """Return a text for each table of the app that is not in the SQLite file."""
    names = set((await connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
    return [f"The table {name} is missing: {ADD_REVISION}." for name in schema.table_names if name not in names]
