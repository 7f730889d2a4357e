"""Repairs what is not part of the schema: the runtime role, its privileges, and row-level security.

A dump restored into another cluster has the newest schema and lacks all of these.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.startup_checks import IsolationBroken, role_faults, row_security_faults
from latchkey.infrastructure.database.table_checks import Fault

MIGRATION_LOCK = 0x6C61746368  # "latch"
"""The key of the advisory lock under which one process migrates. The transaction holds it, because a transaction
pooler would lose a lock of the session.

A process that waits for it ends its transaction between attempts: the creation of an index in `concurrent_index` waits
for all transactions that run, while it holds the lock."""

LOCK_POLL_S = 0.1
LOCK_TIMEOUT_MS = 3_000
"""How long a statement of a migration waits for another lock. Other statements that need the table wait behind it."""


async def repair_role(connection: Any) -> list[str]:
    """Create the runtime role, and let this login switch to it. Returns the statements that were run.

    Raises `Unavailable`, with the remedy, if this login may not do so.
    """
    done, _ = await _repair(connection, role_faults)
    return done


async def repair_row_security(connection: Any, schema: AppSchema) -> list[str]:
    """Repair the role, its privileges and the policies; of the app's tables, the privileges.

    Returns the statements that were run.

    Raises `Unavailable` if this login may not do so, and `IsolationBroken` if faults are left that only an operator
    can judge.
    """
    done, faults = await _repair(connection, partial(row_security_faults, schema=schema))
    if faults:
        raise IsolationBroken.of(fault.text for fault in faults)
    return done


async def _repair(
    connection: Any, find_faults: Callable[[Any], Awaitable[list[Fault]]]
) -> tuple[list[str], list[Fault]]:
    """Repair until only faults without a repair are left, or faults that remain after their repair."""
    done: list[str] = []
    async with _locked_transaction(connection):
        faults = await find_faults(connection)
        while repairs := [fault for fault in faults if fault.repair and fault.repair not in done]:
            for fault in repairs:
                await _run(connection, fault)
                done.append(fault.repair)
            faults = await find_faults(connection)
    return done, faults


@asynccontextmanager
async def _locked_transaction(connection: Any) -> AsyncIterator[None]:
    is_locked = False
    while not is_locked:
        async with connection.transaction():
            is_locked = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK)
            if is_locked:
                yield
        if not is_locked:
            await asyncio.sleep(LOCK_POLL_S)


async def _run(connection: Any, fault: Fault) -> None:
    try:
        async with connection.transaction():
            await connection.execute(fault.repair)
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return  # the migration of another database of this server has just created the role
    except asyncpg.InsufficientPrivilegeError as error:
        raise Unavailable(fault.text) from error
