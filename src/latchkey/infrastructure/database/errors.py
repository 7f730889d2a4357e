"""Maps errors of the drivers to errors of the domain, in one place for all repositories."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, EmulatedDBAPIException
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from latchkey.domain.errors import (
    ConcurrentWrite,
    Conflict,
    DuplicateToolCall,
    Failure,
    Invalid,
    NotFound,
    StaleVersion,
    TurnInProgress,
    Unavailable,
)
from latchkey.infrastructure.database.schema import metadata

DEAD_CONNECTION = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server closed the connection instead of responding
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
)
"""Raised when a connection is lost or cannot be opened."""

_BUSY = (
    PoolTimeout,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, or too many connections
    asyncpg.PostgresSystemError,  # the server cannot read or write its files
    asyncpg.ReadOnlySQLTransactionError,  # the server has become a standby
    asyncpg.QueryCanceledError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidCachedStatementError,  # the schema has changed; the statement is prepared again next time
)
_SQLITE_DOWN = re.compile("SQLITE_(BUSY|LOCKED|FULL|IOERR|CANTOPEN|READONLY|PROTOCOL|NOTADB|CORRUPT)")

_CONSTRAINTS: dict[str, tuple[type[Failure], str]] = {
    "uq_turns_running": (TurnInProgress, "This conversation has a running turn: wait until it has ended."),
    "uq_turns_idempotency": (Conflict, "A request with this Idempotency-Key is in progress: try again."),
    "uq_tool_calls_call": (DuplicateToolCall, "The turn already has a tool call with this id."),
    "pk_idempotent_calls": (DuplicateToolCall, "A concurrent call has the same id."),
    "pk_turn_events": (ConcurrentWrite, "A concurrent request wrote to this turn: try again."),
    "fk_\\w+_conversations": (NotFound, NotFound.of("conversation").detail),
    "fk_\\w+_turns": (NotFound, NotFound.of("turn").detail),
}
"""The errors by the constraint's name, a regular expression."""

_SQLITE_NAMES = {
    "turns.user_id, turns.conversation_id": "uq_turns_running",
    "turns.user_id, turns.idempotency_key": "uq_turns_idempotency",
    "tool_calls.user_id, tool_calls.turn_id, tool_calls.call_id": "uq_tool_calls_call",
    "idempotent_calls.user_id, idempotent_calls.caller, idempotent_calls.key": "pk_idempotent_calls",
    "turn_events.user_id, turn_events.turn_id, turn_events.seq": "pk_turn_events",
}
"""SQLite reports the columns of a unique index instead of its name, and nothing about a foreign key."""


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raises `Unavailable` if the database cannot be used, `Conflict` or `NotFound` for a violated constraint.

    Raises `Invalid` for a text with NUL, which PostgreSQL cannot store.
    """
    try:
        yield
    except (DBAPIError, EmulatedDBAPIException) as error:
        # The ORM's errors; the second type comes from the pool. Their texts would put SQL and parameters into the log.
        driver_error = error.driver_exception
        if failure := _failure_of(driver_error):
            raise failure from driver_error
        raise
    except StaleDataError as error:
        raise StaleVersion("This has been changed since it was read: read it again.") from error
    except (asyncpg.PostgresError, *DEAD_CONNECTION, *_BUSY, sqlite3.Error) as error:
        if failure := _failure_of(error):
            raise failure from error
        raise


def _failure_of(error: BaseException | None) -> Failure | None:
    if isinstance(error, asyncpg.IntegrityConstraintViolationError | sqlite3.IntegrityError):
        return _failure(_constraint(error), _table_of_unique_key(error))
    if isinstance(error, asyncpg.DeadlockDetectedError):
        return ConcurrentWrite("A concurrent request wrote the same data: try again.")
    if isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
        return Invalid("A text has a character that the database cannot store, such as NUL: send it without.")
    return _unavailable() if _is_down(error) else None


def _failure(constraint: str, table_of_unique_key: str) -> Failure:
    for name, (failure, detail) in _CONSTRAINTS.items():
        if re.fullmatch(name, constraint):
            return failure(detail)
    if table_of_unique_key and table_of_unique_key not in metadata.tables:
        return Conflict("Another entry has the same value, which must be unique: choose another one.")
    return Conflict("A concurrent request changed this: try again.")


def _constraint(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return error.constraint_name or ""
    columns = str(error).removeprefix("UNIQUE constraint failed: ")
    return _SQLITE_NAMES.get(columns, "")


def _table_of_unique_key(error: BaseException) -> str:
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.table_name or ""
    match = re.match(r"UNIQUE constraint failed: (.+?)\.", str(error))
    return match[1] if match else ""


def _unavailable() -> Unavailable:
    return Unavailable("The database is unavailable: try again shortly.")


def _is_down(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return bool(_SQLITE_DOWN.match(getattr(error, "sqlite_errorname", "")))
    # An InterfaceError that is a ValueError is about a parameter of ours, not about the connection.
    return isinstance(error, (*DEAD_CONNECTION, *_BUSY)) and not isinstance(error, ValueError)
