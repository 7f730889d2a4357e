"""What both databases provide: a connection inside one transaction, and a backend that opens such transactions."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from latchkey.domain.concurrency import CONNECTIONS, ConcurrencyLimiter
from latchkey.domain.credentials import Credential
from latchkey.domain.ports import TransactionMode

Row = Sequence[Any]
Write = tuple[str, list[Any]]
"""The SQL of an INSERT, UPDATE or DELETE, and its arguments."""

POOL_SIZE = CONNECTIONS
POOL_TIMEOUT_S = 5


class DriverConnection(Protocol):
    """One open connection, used by one unit of work: SQL and arguments in, rows out."""

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]: ...

    async def execute_many(self, writes: list[Write]) -> int:
        """Run independent writes in one round trip. Returns the number of rows that the first one changed."""
        ...

    def dbapi_connection(self) -> Any:
        """Return a connection for SQLAlchemy's ORM, inside the same transaction."""
        ...

    async def commit(self, writes: list[Write]) -> bool:
        """Run the writes and commit. Returns False if the database rolled back instead."""
        ...

    def release(self) -> None:
        """Return the connection to its pool, after a commit."""
        ...

    async def roll_back(self) -> None:
        """Roll back and return the connection to its pool. If that fails, close it instead."""
        ...


class Backend(Protocol):
    """The connections of one database, and how a transaction begins on it."""

    limiter: ConcurrencyLimiter

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        """Hold one of the user's slots while a unit of work is open. Raises `TimeoutError` if none becomes free."""
        ...

    async def begin(self, credential: Credential, mode: TransactionMode) -> DriverConnection:
        """Acquire a connection and begin a transaction for the user whom the credential names."""
        ...
