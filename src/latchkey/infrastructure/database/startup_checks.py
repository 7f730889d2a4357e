"""Startup checks: finds what would break the isolation of users in this database."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.domain.errors import Failure
from latchkey.infrastructure.database.schema import metadata, tasks
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement

_OF_USER = "((user_id)::text = current_setting('app.user_id'::text))"

_ROLE = "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = $1"

_PRIVILEGED_PARENTS = """
SELECT rolname FROM pg_roles AS parent
WHERE rolname <> $1 AND pg_has_role($1, parent.oid, 'MEMBER')
AND (rolsuper OR rolbypassrls OR oid IN (SELECT relowner FROM pg_class WHERE oid = ANY($2::text[]::regclass[])))
"""

_TABLE = """
SELECT relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner) AS owner,
    has_table_privilege($2, oid, 'TRUNCATE') AS may_truncate
FROM pg_class WHERE oid = to_regclass($1)
"""

_POLICIES = """
SELECT polname, polpermissive, polcmd, polroles,
    pg_get_expr(polqual, polrelid) AS visible, pg_get_expr(polwithcheck, polrelid) AS writable
FROM pg_policy WHERE polrelid = to_regclass($1) ORDER BY polname
"""

_SET_USER = "SELECT set_config('app.user_id', $1, true)"
_INSERT = "INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at) VALUES ($1, $2, 0, now(), now())"


async def row_security_faults(connection: Any) -> list[str]:
    """Return the faults of row-level security, each with its remedy. Empty if users are isolated."""
    role = await connection.fetchrow(_ROLE, RUNTIME_ROLE)
    if role is None:
        return [f"The role {RUNTIME_ROLE} does not exist: run `latchkey migrate`."]
    faults = list(_role_faults(role))
    tables = [name for name in metadata.tables if await connection.fetchval("SELECT to_regclass($1)", name)]
    faults += [
        f"The table {name} is missing: run `latchkey migrate`." for name in metadata.tables if name not in tables
    ]
    for name in tables:
        table = await connection.fetchrow(_TABLE, name, RUNTIME_ROLE)
        faults += _table_faults(name, table)
        faults += _policy_faults(name, await connection.fetch(_POLICIES, name))
    if not role["rolsuper"]:
        for parent in await connection.fetch(_PRIVILEGED_PARENTS, RUNTIME_ROLE, tables):
            faults.append(
                f"{RUNTIME_ROLE} is a member of a privileged role: REVOKE {parent['rolname']} FROM {RUNTIME_ROLE}."
            )
    return faults or await _probe_faults(connection)


def _role_faults(role: asyncpg.Record) -> Iterator[str]:
    for privilege, keyword in {"rolcanlogin": "LOGIN", "rolsuper": "SUPERUSER", "rolbypassrls": "BYPASSRLS"}.items():
        if role[privilege]:
            yield f"{RUNTIME_ROLE} has {keyword}: ALTER ROLE {RUNTIME_ROLE} NO{keyword}."


def _table_faults(name: str, table: asyncpg.Record) -> Iterator[str]:
    if not table["relrowsecurity"]:
        yield f"Row-level security is off for {name}: ALTER TABLE {name} ENABLE ROW LEVEL SECURITY."
    if not table["relforcerowsecurity"]:
        yield f"Row-level security is not forced for {name}: ALTER TABLE {name} FORCE ROW LEVEL SECURITY."
    if table["owner"] == RUNTIME_ROLE:
        yield f"{RUNTIME_ROLE} owns {name}: the owner must be the role that migrates."
    elif table["may_truncate"]:
        yield f"{RUNTIME_ROLE} can truncate {name}: REVOKE TRUNCATE ON {name} FROM {RUNTIME_ROLE}, PUBLIC."


def _policy_faults(name: str, policies: list[asyncpg.Record]) -> Iterator[str]:
    expected_name = f"{name}_of_user"
    expected = {"polpermissive": True, "polcmd": b"*", "polroles": [0], "visible": _OF_USER, "writable": _OF_USER}
    if expected_name not in {policy["polname"] for policy in policies}:
        yield f"The policy {expected_name} is missing: create it as the migration does."
    for policy in policies:
        if policy["polname"] != expected_name:
            yield f"{name} has an unknown policy: DROP POLICY {policy['polname']} ON {name}."
        elif any(policy[part] != value for part, value in expected.items()):
            yield f"The policy {expected_name} has been changed: create it as the migration does."


async def _probe_faults(connection: Any) -> list[str]:
    """Test row-level security with two users, in a transaction that is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"SET LOCAL ROLE {RUNTIME_ROLE}")
        return [*await _faults_without_user(connection), *await _faults_between_users(connection)]
    except asyncpg.InsufficientPrivilegeError as error:
        return [f"This login cannot switch to {RUNTIME_ROLE}: run `latchkey migrate` as this login. {error}."]
    finally:
        await transaction.rollback()


async def _faults_without_user(connection: Any) -> list[str]:
    user_id = await connection.fetchval("SELECT current_setting('app.user_id', true)")
    if user_id:
        return ["app.user_id has a default value, which would hide a missing user: ALTER ROLE or DATABASE … RESET it."]
    if user_id is None and not await _raises(connection, asyncpg.UndefinedObjectError, "SELECT FROM conversations"):
        return ["A statement without a user does not fail: create the policies as the migration does."]
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


async def verify(engine: AsyncEngine) -> None:
    """Raises `IsolationBroken`, or the driver's error if the database cannot be reached."""
    async with engine.connect() as connection:
        faults = await _guard_faults(connection)
        if engine.dialect.name == "postgresql":
            faults += await row_security_faults((await connection.get_raw_connection()).driver_connection)
        else:
            faults += await _pragma_faults(connection)
    if faults:
        raise IsolationBroken("\n".join(["The database does not isolate users:", *faults]))


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
