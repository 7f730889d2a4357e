"""What the database says is wrong, in the domain's words: one mapping for all repositories."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, EmulatedDBAPIException
from sqlalchemy.exc import TimeoutError as PoolTimeout

from latchkey.domain.errors import (
    ConcurrentWrite,
    Conflict,
    DuplicateToolCall,
    Failure,
    NotFound,
    TurnInProgress,
    Unavailable,
)

DEAD_CONNECTION = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what it says on meeting the server's farewell where it awaited an answer
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
)
"""What a driver raises when its connection is gone or cannot be made."""

_BUSY = (
    PoolTimeout,
    asyncpg.InsufficientResourcesError,  # its disk is full, its memory, or its list of connections
    asyncpg.PostgresSystemError,  # it cannot read or write its files
    asyncpg.ReadOnlySQLTransactionError,  # it has become somebody's standby
    asyncpg.QueryCanceledError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidCachedStatementError,  # the schema has changed under a prepared statement: prepared anew next time
)
_SQLITE_DOWN = re.compile("SQLITE_(BUSY|LOCKED|FULL|IOERR|CANTOPEN|READONLY|PROTOCOL)")

_CONSTRAINTS: dict[str, tuple[type[Failure], str]] = {
    "uq_turns_running": (TurnInProgress, "This conversation has a running turn: wait until it has ended."),
    "uq_turns_idempotency": (Conflict, "A message with this Idempotency-Key is being taken: try again."),
    "uq_tool_calls_call": (DuplicateToolCall, "The turn has a call under this id already."),
    "pk_turn_events": (ConcurrentWrite, "Somebody else wrote to the turn at the same time: try again."),
    "fk_\\w+_conversations": (NotFound, NotFound.of("conversation").detail),
    "fk_\\w+_turns": (NotFound, NotFound.of("turn").detail),
}
"""By the constraint's name."""

_SQLITE_NAMES = {
    "turns.user_id, turns.conversation_id": "uq_turns_running",
    "turns.user_id, turns.idempotency_key": "uq_turns_idempotency",
    "tool_calls.user_id, tool_calls.turn_id, tool_calls.call_id": "uq_tool_calls_call",
    "turn_events.user_id, turn_events.turn_id, turn_events.seq": "pk_turn_events",
}
"""SQLite tells the columns of a unique index in place of its name, and nothing of a foreign key."""


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raises `Unavailable` for a database that does not answer, `Conflict` or `NotFound` for a constraint."""
    try:
        yield
    except (asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError) as error:
        raise _failure(_constraint(error)) from error
    except asyncpg.DeadlockDetectedError as error:
        raise ConcurrentWrite("Somebody else wrote the same at the same time: try again.") from error
    except (DBAPIError, EmulatedDBAPIException) as error:
        # SQLAlchemy raises the second where it opens a connection for its pool.
        if _is_down(error.driver_exception):
            raise _unavailable() from error
        raise
    except (*DEAD_CONNECTION, *_BUSY, sqlite3.Error) as error:
        if _is_down(error):
            raise _unavailable() from error
        raise


def _failure(constraint: str) -> Failure:
    for name, (kind, detail) in _CONSTRAINTS.items():
        if re.fullmatch(name, constraint):
            return kind(detail)
    return Conflict("Somebody else changed this at the same time: try again.")


def _constraint(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return error.constraint_name or ""
    columns = str(error).removeprefix("UNIQUE constraint failed: ")
    return _SQLITE_NAMES.get(columns, "")


def _unavailable() -> Unavailable:
    return Unavailable("The database does not answer: try again shortly.")


def _is_down(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return bool(_SQLITE_DOWN.match(getattr(error, "sqlite_errorname", "")))
    # asyncpg's InterfaceErrors that are ValueErrors are about a value of ours, not about the connection.
    return isinstance(error, (*DEAD_CONNECTION, *_BUSY)) and not isinstance(error, ValueError)
