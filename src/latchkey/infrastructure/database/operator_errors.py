"""Translates errors of the drivers into one sentence for the operator of a command."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, EmulatedDBAPIException

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.revision import NOT_MIGRATED

_UNREACHABLE = "The database cannot be reached: {}. Check LATCHKEY_DATABASE_URL, and whether the server runs."
_BUSY = "The database cannot do this now: {}. Try again."

_OF_POSTGRESQL: list[tuple[type[BaseException], str]] = [
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "The database refuses this login: {}. Check user, password and sslmode in LATCHKEY_DATABASE_URL.",
    ),
    (
        asyncpg.InvalidCatalogNameError,
        "There is no such database: {}. Create it, or correct its name in LATCHKEY_DATABASE_URL.",
    ),
    (asyncpg.InsufficientPrivilegeError, "This login lacks a privilege: {}. {}."),
    (asyncpg.UndefinedTableError, NOT_MIGRATED),
    (
        asyncpg.DuplicateTableError,
        "Another program has a table of the same name: {}. Use a database or a schema of Latchkey's own.",
    ),
    (
        asyncpg.InvalidSchemaNameError,
        "There is no schema for the tables: {}. Create it, or correct the login's search_path.",
    ),
    (asyncpg.ReadOnlySQLTransactionError, "The database is a standby: {}. Connect to the primary server."),
    (
        asyncpg.LockNotAvailableError,
        "Another transaction holds a lock that the migration needs: {}. Wait until it has ended, and try again.",
    ),
    (asyncpg.ObjectNotInPrerequisiteStateError, _BUSY),
    (asyncpg.InsufficientResourcesError, _BUSY),
    (asyncpg.TransactionRollbackError, _BUSY),
    (asyncpg.QueryCanceledError, _BUSY),
    (asyncpg.PostgresSystemError, _BUSY),
    (asyncpg.InternalServerError, _BUSY),  # also from poolers, for a server that they cannot start
    (asyncpg.OperatorInterventionError, _UNREACHABLE),
    (asyncpg.PostgresConnectionError, _UNREACHABLE),
    (asyncpg.InterfaceError, _UNREACHABLE),
    (asyncpg.InternalClientError, _UNREACHABLE),
    (OSError, _UNREACHABLE),  # also a timeout
]

_GRANTS = {
    "table": "SELECT ON {}",
    "schema": "USAGE, CREATE ON SCHEMA {}",
    "database": "CONNECT, CREATE ON DATABASE {}",
}
"""The missing privileges, by what PostgreSQL calls the object."""

_OF_SQLITE = {
    "SQLITE_CANTOPEN": "The SQLite file cannot be opened: {}. Check LATCHKEY_DATABASE_URL and who may use the folder.",
    "SQLITE_READONLY": "The SQLite file cannot be written: {}. Check who may write the file and its folder.",
    "SQLITE_NOTADB": "LATCHKEY_DATABASE_URL names a file that is no SQLite database: {}.",
    "SQLITE_CORRUPT": "The SQLite file is damaged: {}. Restore a backup.",
    "SQLITE_BUSY": "Another process has locked the SQLite file: {}. Try again.",
    "SQLITE_LOCKED": "Another process has locked the SQLite file: {}. Try again.",
    "SQLITE_FULL": "The SQLite file cannot grow: {}. Free some space.",
    "SQLITE_IOERR": "The SQLite file cannot be read or written: {}. Check the disk and its free space.",
}
"""The texts, by the first part of the error's name."""


@contextmanager
def explained_errors() -> Iterator[None]:
    """Raises `Unavailable` with one sentence for an error that the operator can fix. Other errors are bugs and pass."""
    try:
        yield
    except (DBAPIError, EmulatedDBAPIException) as error:
        _raise_explained(error, error.driver_exception)
        raise
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        sqlite3.Error,
        OSError,
    ) as error:
        _raise_explained(error, error)
        raise


def _raise_explained(error: Exception, driver_error: BaseException) -> None:
    text = _text_for(driver_error)
    if text is not None:
        reason = _reason(driver_error)
        raise Unavailable(text.format(reason, _remedy(reason))) from error


def _text_for(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        return _text_for_sqlite(error)
    if isinstance(error, OSError) and error.filename is not None:
        return "The SQLite file cannot be created: {}. Check LATCHKEY_DATABASE_URL and who may use the folder."
    return next((text for error_type, text in _OF_POSTGRESQL if isinstance(error, error_type)), None)


def _text_for_sqlite(error: sqlite3.Error) -> str | None:
    if str(error).startswith("no such table"):
        return NOT_MIGRATED
    if str(error).endswith("already exists"):
        return "Another program has a table of the same name: {}. Use an SQLite file of Latchkey's own."
    name = getattr(error, "sqlite_errorname", "")
    return next((text for prefix, text in _OF_SQLITE.items() if name.startswith(prefix)), None)


def _reason(error: BaseException) -> str:
    """The error's message without its details and without a full stop."""
    if isinstance(error, TimeoutError) and not str(error):
        return "it did not respond in time"
    return (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")


def _remedy(reason: str) -> str:
    """Return what gives the login the missing privilege."""
    denied = re.fullmatch("permission denied for (table|schema|database) (.+)", reason)
    if denied is None:
        return "Use the login that owns the tables, or let a superuser grant the privilege"
    return f"Let the owner or a superuser run GRANT {_GRANTS[denied[1]].format(denied[2])} TO this login"
