"""Creates SQLAlchemy engines with the tenant guard, and the backend that runs units of work on an engine."""

from typing import Any

from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from latchkey.infrastructure.database.sql.driver import POOL_SIZE, POOL_TIMEOUT_S, Backend
from latchkey.infrastructure.database.sql.postgresql import PostgreSQL
from latchkey.infrastructure.database.sql.sqlite import PRAGMAS, SQLite, create_private_file
from latchkey.infrastructure.database.sql.tenant_guard import install_tenant_guard
from latchkey.infrastructure.database.urls import SQLITE, parse

STATEMENT_TIMEOUT_S = 10
"""Shorter than the lease of a turn, so that a turn outlives one statement without a response."""


def create_engine(text: str) -> AsyncEngine:
    """Create an engine that begins and commits nothing by itself. Raises `UnusableUrl`."""
    url, connect_args = parse(text)
    if url.drivername == SQLITE:
        create_private_file(url)
        connect_args = {"isolation_level": None}
        options = {}
    else:
        connect_args = {"timeout": POOL_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S, **connect_args}
        options = {"isolation_level": "AUTOCOMMIT"}
    engine = create_async_engine(
        url,
        connect_args=connect_args,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_use_lifo=True,
        pool_reset_on_return=None,
        hide_parameters=True,
        **options,
    )
    if url.drivername == SQLITE:
        event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "handle_error", _keep_other_connections)
    install_tenant_guard(engine.sync_engine)
    return engine


def create_backend(engine: AsyncEngine) -> Backend:
    """PostgreSQL uses the engine's pool; SQLite has connections of its own, closed with the engine."""
    return PostgreSQL(engine) if engine.dialect.name == "postgresql" else SQLite(engine)


def _keep_other_connections(context: ExceptionContext) -> None:
    """Stop SQLAlchemy from closing the whole pool because of one dead connection."""
    context.invalidate_pool_on_disconnect = False


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Close the connection if this fails, for example because the file is no database: SQLAlchemy would not."""
    try:
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except BaseException:
        connection.close()
        raise
