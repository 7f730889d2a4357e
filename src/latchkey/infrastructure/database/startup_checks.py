"""Row-level security as it should be on PostgreSQL, and what is wrong with it where it is not."""

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

_MINE = "((user_id)::text = current_setting('app.user_id'::text))"

_ROLE = "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = $1"

_POWERFUL_PARENTS = """
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

_BECOME = "SELECT set_config('app.user_id', $1, true)"
_ADD = "INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at) VALUES ($1, $2, 0, now(), now())"


async def row_security_faults(connection: Any) -> list[str]:
    """What is wrong, each with what would be right; nothing if the rows of each user are theirs alone."""
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
        for parent in await connection.fetch(_POWERFUL_PARENTS, RUNTIME_ROLE, tables):
            faults.append(f"{RUNTIME_ROLE} belongs to a role of power: REVOKE {parent['rolname']} FROM {RUNTIME_ROLE}.")
    return faults or await _probe_faults(connection)


def _role_faults(role: asyncpg.Record) -> Iterator[str]:
    for power, word in {"rolcanlogin": "LOGIN", "rolsuper": "SUPERUSER", "rolbypassrls": "BYPASSRLS"}.items():
        if role[power]:
            yield f"{RUNTIME_ROLE} has {word}: ALTER ROLE {RUNTIME_ROLE} NO{word}."


def _table_faults(name: str, table: asyncpg.Record) -> Iterator[str]:
    if not table["relrowsecurity"]:
        yield f"Row-level security is off for {name}: ALTER TABLE {name} ENABLE ROW LEVEL SECURITY."
    if not table["relforcerowsecurity"]:
        yield f"Row-level security is not forced for {name}: ALTER TABLE {name} FORCE ROW LEVEL SECURITY."
    if table["owner"] == RUNTIME_ROLE:
        yield f"{RUNTIME_ROLE} owns {name}: it must belong to whoever migrates."
    elif table["may_truncate"]:
        yield f"{RUNTIME_ROLE} may empty {name} for everybody: REVOKE TRUNCATE ON {name} FROM {RUNTIME_ROLE}, PUBLIC."


def _policy_faults(name: str, policies: list[asyncpg.Record]) -> Iterator[str]:
    ours = f"{name}_of_user"
    right = {"polpermissive": True, "polcmd": b"*", "polroles": [0], "visible": _MINE, "writable": _MINE}
    if ours not in {policy["polname"] for policy in policies}:
        yield f"The policy {ours} is missing: make it as the migration does."
    for policy in policies:
        if policy["polname"] != ours:
            yield f"{name} has a policy that is not ours: DROP POLICY {policy['polname']} ON {name}."
        elif any(policy[part] != value for part, value in right.items()):
            yield f"The policy {ours} is not what it was: make it as the migration does."


async def _probe_faults(connection: Any) -> list[str]:
    """Try what the catalogue promises, in a transaction that leaves nothing behind."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"SET LOCAL ROLE {RUNTIME_ROLE}")
        return [*await _faults_without_user(connection), *await _faults_between_users(connection)]
    except asyncpg.InsufficientPrivilegeError as error:
        return [f"This login cannot work as {RUNTIME_ROLE}, which `latchkey migrate` by it would mend: {error}."]
    finally:
        await transaction.rollback()


async def _faults_without_user(connection: Any) -> list[str]:
    user_id = await connection.fetchval("SELECT current_setting('app.user_id', true)")
    if user_id:
        return [
            "app.user_id has a default, so that a forgotten user goes unnoticed: ALTER ROLE or DATABASE … RESET it."
        ]
    if user_id is None and not await _refuses(connection, asyncpg.UndefinedObjectError, "SELECT FROM conversations"):
        return ["Without a user, a statement does not fail: make the policies as the migration does."]
    return []


async def _faults_between_users(connection: Any) -> list[str]:
    mine, yours = f"probe-{uuid4()}", f"probe-{uuid4()}"
    await connection.execute(_BECOME, mine)
    await connection.execute(_ADD, mine, uuid4())
    await connection.execute(_BECOME, yours)
    faults = []
    if await connection.fetchval("SELECT count(*) FROM conversations WHERE user_id = $1", mine):
        faults.append("Tried: one user sees another's conversation.")
    if not await _refuses(connection, asyncpg.InsufficientPrivilegeError, _ADD, mine, uuid4()):
        faults.append("Tried: one user may add a conversation of another's.")
    return faults


async def _refuses(connection: Any, refusal: type[Exception], statement: str, *values: object) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(statement, *values)
    except refusal:
        return True
    return False


_PRAGMAS = {"foreign_keys": 1, "journal_mode": "wal"}


class IsolationBroken(Failure):
    """This database would not keep users apart; the text lists everything that is wrong, and what would be right."""


async def verify(engine: AsyncEngine) -> None:
    """Raises `IsolationBroken`; and what the driver does, if the database does not answer."""
    async with engine.connect() as connection:
        faults = await _guard_faults(connection)
        if engine.dialect.name == "postgresql":
            faults += await row_security_faults((await connection.get_raw_connection()).driver_connection)
        else:
            faults += await _pragma_faults(connection)
    if faults:
        raise IsolationBroken("\n".join(["The database would not keep users apart:", *faults]))


async def _guard_faults(connection: AsyncConnection) -> list[str]:
    try:
        await connection.execute(select(tasks.c.id).limit(0), {USER: "nobody"})
    except UnscopedStatement:
        return []
    return ["The engine has no statement guard: make it with `create_engine`."]


async def _pragma_faults(connection: AsyncConnection) -> list[str]:
    found = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in _PRAGMAS}
    return [
        f"SQLite's {name} is {found[name]}, not {right}: it must be a file on a local disk, opened by `create_engine`."
        for name, right in _PRAGMAS.items()
        if found[name] != right
    ]
