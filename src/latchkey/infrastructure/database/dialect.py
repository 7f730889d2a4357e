"""How a transaction and a user's door are opened: the one place where the databases differ."""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.ports import Isolation
from latchkey.domain.scope import UserId

RUNTIME_ROLE = "latchkey_rt"
"""A role without login that owns nothing: row-level security binds it, whatever the login may do."""


class Dialect(Protocol):
    def opening(self, user_id: UserId, isolation: Isolation) -> str:
        """The SQL that begins a transaction for a user."""
        ...

    def queue(self, isolation: Isolation) -> AbstractAsyncContextManager[Any]:
        """Held while a unit is open, where the units of one process must wait for one another."""
        ...


class PostgreSQL:
    """Role and user are set for the transaction alone, in the very message that begins it.

    That is one round trip where SQLAlchemy's BEGIN and a `set_config` would be two. The text needs no
    escaping: `user_id_of` admits no quote and no backslash.
    """

    def opening(self, user_id: UserId, isolation: Isolation) -> str:
        begin = "BEGIN READ ONLY" if isolation == "read" else "BEGIN"
        door = f"{begin};SET LOCAL ROLE {RUNTIME_ROLE};SET LOCAL app.user_id='{user_id}'"
        if isolation == "serial":
            return f"{door};SELECT pg_advisory_xact_lock(hashtextextended('latchkey:{user_id}',0))"
        return door

    def queue(self, isolation: Isolation) -> AbstractAsyncContextManager[Any]:
        return nullcontext()


class SQLite:
    """One writer at a time, which takes its lock at once: to wait for it later fails as "database is locked"."""

    def __init__(self) -> None:
        self._writer = asyncio.Lock()

    def opening(self, user_id: UserId, isolation: Isolation) -> str:
        return "BEGIN" if isolation == "read" else "BEGIN IMMEDIATE"

    def queue(self, isolation: Isolation) -> AbstractAsyncContextManager[Any]:
        return nullcontext() if isolation == "read" else self._writer


def dialect_of(engine: AsyncEngine) -> Dialect:
    return PostgreSQL() if engine.dialect.name == "postgresql" else SQLite()
