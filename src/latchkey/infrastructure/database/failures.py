"""What the database says is wrong, in the domain's words: one mapping for all repositories."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from latchkey.domain.errors import Conflict, Failure, NotFound, TurnInProgress, Unavailable

DEAD = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError, OSError)
"""What a driver raises when its connection is gone or cannot be made."""

_BUSY = (PoolTimeout, asyncpg.TooManyConnectionsError, asyncpg.QueryCanceledError, asyncpg.TransactionRollbackError)

_CONSTRAINTS: dict[str, Failure] = {
    "uq_turns_running": TurnInProgress("This conversation has a running turn: wait until it has ended."),
    "conversations": NotFound.of("conversation"),
    "turns": NotFound.of("turn"),
}
"""By what the driver's text of a violated constraint holds."""


@contextmanager
def translated() -> Iterator[None]:
    """Raises `Unavailable` for a database that does not answer, `Conflict` or `NotFound` for a constraint."""
    try:
        yield
    except IntegrityError as error:
        text = str(error.orig)
        known = (Failure_ for name, Failure_ in _CONSTRAINTS.items() if name in text)
        failure = next(known, Conflict("Somebody else changed this at the same time: try again."))
        raise type(failure)(failure.detail) from error
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(_driver_error(error), (*DEAD, *_BUSY)) or _is_locked(error):
            raise _unavailable() from error
        raise
    except (*DEAD, *_BUSY) as error:
        raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("The database does not answer: try again shortly.")


def _driver_error(error: DBAPIError) -> BaseException | None:
    return error.orig.__cause__ if error.orig is not None else None


def _is_locked(error: DBAPIError) -> bool:
    """SQLite knows these only by their text."""
    text = str(error.orig)
    return any(sign in text for sign in ("database is locked", "disk is full", "disk I/O error", "unable to open"))
