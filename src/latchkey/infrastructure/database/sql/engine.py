"""Engines: one per process and event loop, each with the guard and its dialect's manners."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from latchkey.infrastructure.database.sql.tenant_guard import install_tenant_guard
from latchkey.infrastructure.database.urls import SQLITE, parse

POOL_SIZE = 20
POOL_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10
"""A turn's lease outlives one statement that is never answered."""

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON")


def create_engine(text: str) -> AsyncEngine:
    """An engine that begins and commits only what a unit of work tells it to. Raises `UnusableUrl`."""
    url, connect_args = parse(text)
    if url.drivername == SQLITE:
        make_private(url)
        engine = create_async_engine(
            url,
            connect_args={"isolation_level": None},
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_reset_on_return=None,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _set_pragmas)
    else:
        engine = create_async_engine(
            url,
            connect_args={"timeout": POOL_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S, **connect_args},
            isolation_level="AUTOCOMMIT",
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_use_lifo=True,
            pool_reset_on_return=None,
            hide_parameters=True,
        )
    event.listen(engine.sync_engine, "handle_error", _keep_the_others)
    install_tenant_guard(engine.sync_engine)
    return engine


def _keep_the_others(context: ExceptionContext) -> None:
    """Of one dead connection, SQLAlchemy concludes that all are. Whoever takes another finds out soon enough."""
    context.invalidate_pool_on_disconnect = False


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def make_private(url: URL) -> None:
    """Make the file before SQLite does, which would let everybody on the machine read it.

    The files that SQLite puts beside it get its mode. What is there already stays as it is, and what cannot be
    made is told by whoever connects.
    """
    with suppress(OSError):
        os.close(os.open(str(url.database), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def files_of(url: URL) -> list[Path]:
    """Where they are, if they are there: SQLite removes its log and its index when nobody has the database open."""
    return [Path(f"{url.database}{suffix}") for suffix in ("", "-wal", "-shm")]
