"""Connections from SQLAlchemy's pool: in a transaction when they are had, and out of it when they go back."""

import asyncio
import sqlite3
from weakref import WeakSet

import asyncpg
from sqlalchemy import PoolProxiedConnection, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util import greenlet_spawn

from latchkey.infrastructure.database.errors import DEAD
from latchkey.infrastructure.database.sql.dialects import Dialect
from latchkey.infrastructure.database.sql.driver import DriverConnection
from latchkey.infrastructure.database.sql.engine import POOL_SIZE, POOL_TIMEOUT_S


class PooledConnection:
    """One of the pool's, for one unit of work."""

    def __init__(self, pooled: PoolProxiedConnection, driver: DriverConnection) -> None:
        self._pooled = pooled
        self.driver = driver

    def release(self) -> None:
        """Without waiting: the pool resets nothing, because a transaction of ours is always ended by us."""
        self._pooled.close()

    async def discard(self) -> None:
        """Not to be used again by anybody."""
        await greenlet_spawn(self._pooled.invalidate)
        self.release()

    async def roll_back(self) -> None:
        """Give it back as it came, or not at all; the database then ends its transaction by itself."""
        try:
            # asyncpg first waits, however long it takes, for the server to hear that a statement is given up.
            async with asyncio.timeout(POOL_TIMEOUT_S):
                await self.driver.roll_back()
        except (*DEAD, asyncpg.PostgresError, sqlite3.Error):
            await self.discard()
        except BaseException:
            self.release()
            raise
        else:
            self.release()


class ConnectionPool:
    """Those of one engine."""

    def __init__(self, engine: AsyncEngine, dialect: Dialect) -> None:
        self._engine = engine
        self._dialect = dialect
        self._given_up = WeakSet[ConnectionPoolEntry]()
        event.listen(engine.sync_engine, "invalidate", lambda _, entry, __: self._given_up.add(entry))
        event.listen(engine.sync_engine, "detach", lambda _, entry: self._given_up.add(entry))
        event.listen(engine.sync_engine, "connect", lambda _, entry: self._given_up.discard(entry))

    async def begin(self, begin_sql: str) -> PooledConnection:
        """One in a transaction. A pooled one that turns out to be dead is replaced: nothing was done on it."""
        for attempts_left in reversed(range(POOL_SIZE + 1)):
            pooled = await self._take()
            connection = PooledConnection(pooled, self._dialect.driver(pooled.driver_connection))
            try:
                await connection.driver.begin(begin_sql)
            except DEAD as error:
                await connection.discard()
                # One that is silent took all the time there is, and so may each of the others.
                if not attempts_left or isinstance(error, TimeoutError):
                    raise
            except BaseException:
                await asyncio.shield(connection.roll_back())
                raise
            else:
                return connection
        raise AssertionError  # the last attempt returns or raises

    async def _take(self) -> PoolProxiedConnection:
        """One that is idle is there at once; `AsyncEngine.connect` prepares to wait all the same: 12 us of a call.

        It does have to wait if the pool is full, or has those that were given up, and have to be made anew.
        """
        pool = self._pool
        if pool and pool.checkedin() and pool.overflow() < 0 and not self._given_up:
            return pool.connect()
        connection = (await self._engine.connect()).sync_connection
        if connection is None:
            raise AssertionError  # only before it is connected
        return connection.connection

    @property
    def _pool(self) -> QueuePool | None:
        """None for SQLite, whose connections are far away in their threads."""
        pool = self._engine.pool
        return pool if isinstance(pool, QueuePool) and self._engine.name == "postgresql" else None
