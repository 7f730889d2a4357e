"""Engines: one per process and event loop, each with the guard and its dialect's manners."""

from typing import Any

from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from latchkey.infrastructure.database.guard import guard
from latchkey.infrastructure.database.sqlite_file import make_private
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
    guard(engine.sync_engine)
    return engine


def _keep_the_others(context: ExceptionContext) -> None:
    """Of one dead connection, SQLAlchemy concludes that all are. Whoever takes another finds out soon enough."""
    context.invalidate_pool_on_disconnect = False


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
