"""Startup checks: finds what would break the isolation of users in this database."""

from collections.abc import Iterable, Iterator
from typing import Any, Self
from uuid import uuid4

import asyncpg
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.domain.errors import Failure
from latchkey.infrastructure.database.schema import metadata, tasks
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement

_OF_USER = "((user_id)::text = current_setting('app.user_id'::text))"
_CONDITION = "user_id = current_setting('app.user_id')"

_ROLE = "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = $1"

_MAY_SWITCH = "SELECT current_user, pg_has_role(current_user, $1::name, $2::text) AS may_switch"

_SCHEMA = "SELECT current_schema() AS name, has_schema_privilege($1::name, current_schema()::text, 'USAGE') AS may_use"

_PRIVILEGED_PARENTS = """
SELECT rolname FROM pg_roles AS parent
WHERE rolname <> $1 AND pg_has_role($1, parent.oid, 'MEMBER')
AND (rolsuper OR rolbypassrls OR oid IN (SELECT relowner FROM pg_class WHERE oid = ANY($2::text[]::regclass[])))
"""

_TABLE = """
SELECT relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner) AS owner,
    has_table_privilege($2, oid, 'TRUNCATE') AS may_truncate,
    has_table_privilege($2, oid, 'SELECT') AND has_table_privilege($2, oid, 'INSERT')
        AND has_table_privilege($2, oid, 'UPDATE') AND has_table_privilege($2, oid, 'DELETE') AS may_use
FROM pg_class WHERE oid = to_regclass($1)
"""

_POLICIES = """
SELECT polname, polpermissive, polcmd, polroles,
    pg_get_expr(polqual, polrelid) AS visible, pg_get_expr(polwithcheck, polrelid) AS writable
FROM pg_policy WHERE polrelid = to_regclass($1) ORDER BY polname
"""

_SET_USER = "SELECT set_config('app.user_id', $1, true)"
_INSERT = "INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at) VALUES ($1, $2, 0, now(), now())"

_SET_OPTION_SINCE = 16
"""The first version of PostgreSQL whose memberships have an option for SET ROLE."""


class Fault(Struct, frozen=True):
    """What breaks the isolation of users, with the remedy. `repair` is the SQL with which `migrate` repairs it."""

    text: str
    repair: str = ""


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


async def row_security_faults(connection: Any) -> list[Fault]:
    """Return the faults of the runtime role and of row-level security. Empty if users are isolated."""
    role = await connection.fetchrow(_ROLE, RUNTIME_ROLE)
    faults = await role_faults(connection)
    if role is None:
        return faults
    faults += _schema_faults(await connection.fetchrow(_SCHEMA, RUNTIME_ROLE))
    tables = [name for name in metadata.tables if await connection.fetchval("SELECT to_regclass($1)", name)]
    faults += [
        Fault(f"The table {name} is missing: run `latchkey migrate`.") for name in metadata.tables if name not in tables
    ]
    for name in tables:
        faults += _table_faults(name, await connection.fetchrow(_TABLE, name, RUNTIME_ROLE))
        faults += _policy_faults(name, await connection.fetch(_POLICIES, name))
    if not role["rolsuper"]:
        for parent in await connection.fetch(_PRIVILEGED_PARENTS, RUNTIME_ROLE, tables):
            text = f"{RUNTIME_ROLE} is a member of a privileged role: REVOKE {parent['rolname']} FROM {RUNTIME_ROLE}."
            faults.append(Fault(text))
    return faults or [Fault(text) for text in await _probe_faults(connection)]


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


def _table_faults(name: str, table: asyncpg.Record) -> Iterator[Fault]:
    if not table["relrowsecurity"]:
        repair = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        yield Fault(f"Row-level security is off for {name}: {repair}.", repair)
    if not table["relforcerowsecurity"]:
        repair = f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        yield Fault(f"Row-level security is not forced for {name}: {repair}.", repair)
    if table["owner"] == RUNTIME_ROLE:
        yield Fault(f"{RUNTIME_ROLE} owns {name}: the owner must be the role that migrates.")
        return
    if table["may_truncate"]:
        repair = f"REVOKE TRUNCATE ON {name} FROM {RUNTIME_ROLE}, PUBLIC"
        yield Fault(f"{RUNTIME_ROLE} can truncate {name}: {repair}.", repair)
    if not table["may_use"]:
        repair = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {RUNTIME_ROLE}"
        yield Fault(f"{RUNTIME_ROLE} may not read and write {name}: {repair}.", repair)


def _policy_faults(name: str, policies: list[asyncpg.Record]) -> Iterator[Fault]:
    """A policy of another name is for the operator to remove: it may have a purpose outside of Latchkey."""
    expected_name = f"{name}_of_user"
    create = f"CREATE POLICY {expected_name} ON {name} USING ({_CONDITION}) WITH CHECK ({_CONDITION})"
    expected = {"polpermissive": True, "polcmd": b"*", "polroles": [0], "visible": _OF_USER, "writable": _OF_USER}
    if expected_name not in {policy["polname"] for policy in policies}:
        yield Fault(f"The policy {expected_name} is missing: run `latchkey migrate`.", create)
    for policy in policies:
        if policy["polname"] != expected_name:
            yield Fault(f"{name} has an unknown policy: DROP POLICY {policy['polname']} ON {name}.")
        elif any(policy[part] != value for part, value in expected.items()):
            repair = f"DROP POLICY {expected_name} ON {name}; {create}"
            yield Fault(f"The policy {expected_name} has been changed: run `latchkey migrate`.", repair)


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


async def verify(engine: AsyncEngine) -> None:
    """Raises `IsolationBroken`, or the driver's error if the database cannot be reached."""
    async with engine.connect() as connection:
        faults = await _guard_faults(connection)
        if engine.dialect.name == "postgresql":
            driver_connection = (await connection.get_raw_connection()).driver_connection
            faults += [fault.text for fault in await row_security_faults(driver_connection)]
        else:
            faults += await _pragma_faults(connection)
    if faults:
        raise IsolationBroken.of(faults)


async def _guard_faults(connection: AsyncConnection) -> list[str]:
    try:
        await connection.execute(select(tasks.c.id).limit(0), {USER: "nobody"})
    except UnscopedStatement:
        return []
    return ["The engine has no tenant guard: create it with `create_engine`."]


async def _pragma_faults(connection: AsyncConnection) -> list[str]:
    values = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in _PRAGMAS}
    return [
        f"SQLite's {name} is {values[name]} instead of {expected}: use a file on a local disk and `create_engine`."
        for name, expected in _PRAGMAS.items()
        if values[name] != expected
    ]
