"""Checks of single tables on PostgreSQL: row-level security, policies, privileges."""

from collections.abc import Iterator
from typing import Any

import asyncpg
from msgspec import Struct
from sqlalchemy.dialects import postgresql

from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE

_OF_USER = "((user_id)::text = current_setting('app.user_id'::text))"
_CONDITION = "user_id = current_setting('app.user_id')"

_NAME_BYTES = 63
"""PostgreSQL cuts longer names off."""

_TABLE = """
SELECT relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner) AS owner,
    has_table_privilege($2, oid, 'TRUNCATE') AS may_truncate,
    has_table_privilege($2, oid, 'SELECT') AS may_read,
    has_any_column_privilege($2, oid, 'INSERT') OR has_any_column_privilege($2, oid, 'UPDATE')
        OR has_table_privilege($2, oid, 'DELETE, TRUNCATE') AS may_change,
    has_table_privilege($2, oid, 'SELECT') AND has_table_privilege($2, oid, 'INSERT')
        AND has_table_privilege($2, oid, 'UPDATE') AND has_table_privilege($2, oid, 'DELETE') AS may_use
FROM pg_class WHERE oid = to_regclass($1)
"""

_POLICIES = """
SELECT polname, polpermissive, polcmd, polroles,
    pg_get_expr(polqual, polrelid) AS visible, pg_get_expr(polwithcheck, polrelid) AS writable
FROM pg_policy WHERE polrelid = to_regclass($1) ORDER BY polname
"""

_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]


class Fault(Struct, frozen=True):
    """What breaks the isolation of users, with the remedy. `repair` is the SQL with which `migrate` repairs it."""

    text: str
    repair: str = ""


def secure_entity_table_sql(table: str) -> list[str]:
    """Return the statements after which a transaction sees and writes only the rows of its user. They may be repeated.

    The runtime role may use the table.
    """
    name = quoted(table)
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {_quote(policy_name(table))} ON {name}",
        _create_policy(table),
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {RUNTIME_ROLE}",
    ]


def grant_reference_table_sql(table: str) -> list[str]:
    """Return the statements after which the runtime role may read the table, and not write it. They may be repeated."""
    return [_revoke_writing(table), f"GRANT SELECT ON {quoted(table)} TO {RUNTIME_ROLE}"]


def quoted(table: str) -> str:
    return str(_quote(table))


def policy_name(table: str) -> str:
    return f"{table}_of_user".encode()[:_NAME_BYTES].decode(errors="ignore")


async def exists(connection: Any, table: str) -> bool:
    return await connection.fetchval("SELECT to_regclass($1)", quoted(table)) is not None


async def user_table_faults(connection: Any, table: str) -> list[Fault]:
    """Return the faults of an existing table of Latchkey's own; each of them has rows of users."""
    row, policies = await _look_up(connection, table)
    return [
        *_row_security_faults(table, row),
        *_privilege_faults(table, row),
        *_policy_faults(table, policies),
    ]


async def entity_faults(connection: Any, table: str) -> list[Fault]:
    """Return the faults of an existing entity table of the app. `migrate` repairs only its privileges."""
    row, policies = await _look_up(connection, table)
    security = [*_row_security_faults(table, row), *_policy_faults(table, policies)]
    return [*(_for_revision(fault, table) for fault in security), *_privilege_faults(table, row)]


async def reference_table_faults(connection: Any, table: str) -> list[Fault]:
    """Return the faults of an existing reference table of the app: users read it, and never write it."""
    row, _ = await _look_up(connection, table)
    return list(_reference_faults(table, row))


async def _look_up(connection: Any, table: str) -> tuple[asyncpg.Record, list[asyncpg.Record]]:
    row = await connection.fetchrow(_TABLE, quoted(table), RUNTIME_ROLE)
    return row, await connection.fetch(_POLICIES, quoted(table))


def _for_revision(fault: Fault, table: str) -> Fault:
    """Let a revision of the app repair what `migrate` repairs in Latchkey's own tables."""
    if not fault.repair:
        return fault
    problem = fault.text.partition(": ")[0]
    return Fault(f'{problem}: add op.secure_entity_table("{table}") to a revision of the app.')


def _row_security_faults(table: str, row: asyncpg.Record) -> Iterator[Fault]:
    name = quoted(table)
    if not row["relrowsecurity"]:
        repair = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        yield Fault(f"Row-level security is off for {name}: {repair}.", repair)
    if not row["relforcerowsecurity"]:
        repair = f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        yield Fault(f"Row-level security is not forced for {name}: {repair}.", repair)


def _privilege_faults(table: str, row: asyncpg.Record) -> Iterator[Fault]:
    name = quoted(table)
    if row["owner"] == RUNTIME_ROLE:
        yield _owner_fault(name)
        return
    if row["may_truncate"]:
        repair = f"REVOKE TRUNCATE ON {name} FROM {RUNTIME_ROLE}, PUBLIC"
        yield Fault(f"{RUNTIME_ROLE} can truncate {name}: {repair}.", repair)
    if not row["may_use"]:
        repair = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {RUNTIME_ROLE}"
        yield Fault(f"{RUNTIME_ROLE} may not read and write {name}: {repair}.", repair)


def _reference_faults(table: str, row: asyncpg.Record) -> Iterator[Fault]:
    name = quoted(table)
    if row["owner"] == RUNTIME_ROLE:
        yield _owner_fault(name)
        return
    if row["may_change"]:
        repair = _revoke_writing(table)
        yield Fault(f"{RUNTIME_ROLE} can write the reference table {name}: {repair}.", repair)
    if not row["may_read"]:
        repair = f"GRANT SELECT ON {name} TO {RUNTIME_ROLE}"
        yield Fault(f"{RUNTIME_ROLE} may not read {name}: {repair}.", repair)


def _owner_fault(name: str) -> Fault:
    return Fault(f"{RUNTIME_ROLE} owns {name}: the owner must be the role that migrates.")


def _policy_faults(table: str, policies: list[asyncpg.Record]) -> Iterator[Fault]:
    """A policy of another name is for the operator to remove: it may have a purpose outside of Latchkey."""
    name, expected_name = quoted(table), policy_name(table)
    create = _create_policy(table)
    expected = {"polpermissive": True, "polcmd": b"*", "polroles": [0], "visible": _OF_USER, "writable": _OF_USER}
    if expected_name not in {policy["polname"] for policy in policies}:
        yield Fault(f"The policy {expected_name} is missing: run `latchkey migrate`.", create)
    for policy in policies:
        if policy["polname"] != expected_name:
            yield Fault(f"{name} has an unknown policy: DROP POLICY {_quote(policy['polname'])} ON {name}.")
        elif any(policy[part] != value for part, value in expected.items()):
            repair = f"DROP POLICY {_quote(expected_name)} ON {name}; {create}"
            yield Fault(f"The policy {expected_name} has been changed: run `latchkey migrate`.", repair)


def _create_policy(table: str) -> str:
    return (
        f"CREATE POLICY {_quote(policy_name(table))} ON {quoted(table)} USING ({_CONDITION}) WITH CHECK ({_CONDITION})"
    )


def _revoke_writing(table: str) -> str:
    return f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {quoted(table)} FROM {RUNTIME_ROLE}, PUBLIC"
