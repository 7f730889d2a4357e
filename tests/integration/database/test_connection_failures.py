"""Lost, exhausted and restored connections: a unit of work succeeds or is `Unavailable`, and nothing stays broken."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import QueuePool, make_url
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.revision import read_schema_version
from latchkey.infrastructure.database.sql import engine as engines
from latchkey.infrastructure.database.sql import postgresql, sqlite
from latchkey.infrastructure.database.sql.driver import POOL_SIZE
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.postgresql import PostgreSQLPool
from latchkey.infrastructure.database.sql.sqlite import SQLite, SQLitePool
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_task
from tests.contract.database.cancellation import is_cancelled_at
from tests.integration.database.tcp_proxy import TcpProxy, proxy_to
from tests.polling import TIMEOUT_S

ME = Owner(UserId("me"))
KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@asynccontextmanager
async def database(url: str) -> AsyncIterator[tuple[AsyncEngine, SqlUnitsOfWork]]:
    engine = create_engine(url)
    try:
        yield engine, SqlUnitsOfWork(engine)
    finally:
        await engine.dispose()


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two connections, and timeouts of one second for a connection and for a statement."""
    for name, value in {"POOL_SIZE": 2, "POOL_TIMEOUT_S": 1, "STATEMENT_TIMEOUT_S": 1}.items():
        monkeypatch.setattr(engines, name, value)
    monkeypatch.setattr(postgresql, "POOL_TIMEOUT_S", 1)


async def add(units: SqlUnitsOfWork, title: str = "Buy milk") -> None:
    async with units.open(ME, "write") as uow:
        await uow.tasks.add(a_task(title))
        await uow.commit()


async def fill_pool(engine: AsyncEngine, size: int = POOL_SIZE) -> None:
    """Leave the pool with as many idle connections as it can hold."""
    pool = PostgreSQLPool(engine)  # without the limits of a unit of work
    connections = [await pool.begin("BEGIN") for _ in range(size)]
    for connection in connections:
        await connection.roll_back()
    assert pool_of(engine).checkedin() == size


def pool_of(engine: AsyncEngine) -> QueuePool:
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    return pool


def sqlite_pool_of(units: SqlUnitsOfWork) -> SQLitePool:
    backend = units._backend
    assert isinstance(backend, SQLite)
    return backend.pool


async def kill_all(url: str) -> int:
    connection = await asyncpg.connect(url)
    killed = len(await connection.fetch(KILL))
    await connection.close()
    return killed


async def test_dead_pooled_connections_fail_no_unit_of_work(postgresql_url: str, superuser_url: str) -> None:
    """As after a failover: every connection of a full pool is dead at once."""
    async with database(postgresql_url) as (engine, units):
        for _ in range(3):
            await fill_pool(engine)
            assert await kill_all(superuser_url) == POOL_SIZE
            await asyncio.gather(*(add(units) for _ in range(30)))
        assert pool_of(engine).checkedout() == 0

        async with units.open(ME, "read") as uow:
            assert len((await uow.tasks.page(None, Window(200))).items) == 90


async def test_connection_lost_during_unit_of_work_is_unavailable(postgresql_url: str, superuser_url: str) -> None:
    """Nothing of it is stored, and the next one succeeds."""
    async with database(postgresql_url) as (engine, units):
        with pytest.raises(Unavailable):  # noqa: PT012 # the unit of work is one block
            async with units.open(ME, "write") as uow:
                await uow.tasks.add(a_task("Lost"))
                await kill_all(superuser_url)
                await uow.tasks.page(None, Window())
        with pytest.raises(Unavailable):  # noqa: PT012 # the unit of work is one block
            async with units.open(ME, "write") as uow:
                await uow.tasks.add(a_task("Lost"))
                await kill_all(superuser_url)
                await uow.commit()

        await add(units, "Kept")
        async with units.open(ME, "read") as uow:
            assert [task.title for task in (await uow.tasks.page(None, Window())).items] == ["Kept"]
        assert pool_of(engine).checkedout() == 0


async def test_connection_whose_rollback_was_cancelled_is_not_used_again(postgresql_url: str) -> None:
    """Its transaction may still be open, and the next unit of work may be that of another user."""
    async with database(postgresql_url) as (engine, _):
        pool, backends = PostgreSQLPool(engine), set[int]()
        for is_cancelled in (True, False):
            connection = await pool.begin("BEGIN")
            backends |= {pid for (pid,) in await connection.fetch("SELECT pg_backend_pid()", [])}
            if is_cancelled:
                assert await is_cancelled_at(1, connection.roll_back())
            else:
                await connection.roll_back()

        assert len(backends) == 2
        assert pool_of(engine).checkedout() == 0


async def test_connection_that_was_never_released_is_replaced(postgresql_url: str) -> None:
    """The garbage collector closes it, and later units of work succeed."""
    async with database(postgresql_url) as (engine, units):
        await add(units)
        leaked = await PostgreSQLPool(engine).begin("BEGIN")
        with pytest.warns(SAWarning, match="non-checked-in"):  # noqa: PT031 # the warning comes from the garbage collector
            del leaked
            gc.collect()

        for _ in range(3):
            await add(units)
        assert pool_of(engine).checkedout() == 0


async def test_dead_connection_in_readiness_probe_does_not_invalidate_the_pool(
    postgresql_url: str, superuser_url: str
) -> None:
    """The probe fails. Units of work replace the other dead connections when they use them."""
    async with database(postgresql_url) as (engine, units):
        async with units.open(ME, "read"), units.open(ME, "read"):
            pass
        await kill_all(superuser_url)
        with pytest.raises(DBAPIError):
            await read_schema_version(engine)

        async with units.open(ME, "read") as first, units.open(ME, "read") as second:
            assert await first.tasks.page(None, Window()) == await second.tasks.page(None, Window())


async def test_connections_killed_at_any_moment_raise_only_unavailable(postgresql_url: str, superuser_url: str) -> None:
    async with database(postgresql_url) as (engine, units):
        for _ in range(10):
            outcomes = asyncio.gather(*(add(units) for _ in range(20)), return_exceptions=True)
            await kill_all(superuser_url)
            assert {type(outcome) for outcome in await outcomes} <= {type(None), Unavailable}
        await add(units)
        assert pool_of(engine).checkedout() == 0


async def test_exhausted_pool_is_unavailable_after_timeout(postgresql_url: str, short_timeouts: None) -> None:
    async with database(postgresql_url) as (engine, units):
        async with units.open(ME, "read"), units.open(ME, "read"):
            with pytest.raises(Unavailable):
                await add(units)
        await asyncio.gather(*(add(units) for _ in range(10)))
        assert pool_of(engine).checkedout() == 0


async def test_server_down_is_unavailable_until_it_is_back(postgresql_url: str, short_timeouts: None) -> None:
    """No restart is needed, and no connection is leaked."""
    server_port = make_url(postgresql_url).port or 5432
    async with proxy_to(server_port) as proxy, database(through(proxy, postgresql_url)) as (engine, units):
        for _ in range(3):
            await fill_pool(engine, size=2)
            await proxy.disconnect()
            for _ in range(4):
                with pytest.raises(Unavailable):
                    await add(units)
            await proxy.restore()
            await asyncio.gather(*(add(units) for _ in range(10)))
        assert pool_of(engine).checkedout() == 0


async def test_server_without_response_is_unavailable_after_timeout(postgresql_url: str, short_timeouts: None) -> None:
    """In the middle of a unit of work, and at the beginning of the next."""
    server_port = make_url(postgresql_url).port or 5432
    async with proxy_to(server_port) as proxy, database(through(proxy, postgresql_url)) as (engine, units):
        await add(units)
        with pytest.raises(Unavailable):  # noqa: PT012 # the unit of work is one block
            async with units.open(ME, "write") as uow:
                proxy.freeze()
                await uow.tasks.page(None, Window())
        with pytest.raises(Unavailable):
            await add(units)
        await proxy.restore()
        await add(units)
        assert pool_of(engine).checkedout() == 0


def through(proxy: TcpProxy, url: str) -> str:
    return make_url(url).set(port=proxy.port).render_as_string(hide_password=False)


async def test_unreachable_server_is_unavailable(short_timeouts: None) -> None:
    async with database("postgresql://nobody@127.0.0.1:1/nothing") as (_, units):
        with pytest.raises(Unavailable):
            await add(units)


async def test_sqlite_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    async with database(f"sqlite:///{tmp_path}/nowhere/latchkey.db") as (_, units):
        with pytest.raises(Unavailable):
            await add(units)
    started = set(threading.enumerate()) - threads
    for thread in started:
        thread.join(TIMEOUT_S)
    assert not any(thread.is_alive() for thread in started)


async def test_sqlite_connection_whose_thread_cannot_start_leaves_no_slot_taken(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system limits threads. Later units of work succeed."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with database(sqlite_url) as (_, units):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError):
                await add(units)
        assert sqlite_pool_of(units).in_use == 0
        await add(units)


LOCK = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


async def test_sqlite_file_locked_by_another_process_is_unavailable_to_writers(
    sqlite_url: str, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers are not disturbed, and writers succeed once the lock is released."""
    monkeypatch.setattr(sqlite, "PRAGMAS", (*sqlite.PRAGMAS, "busy_timeout=100"))
    async with database(sqlite_url) as (_, units):
        await add(units)
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LOCK, sqlite_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout
        assert await holder.stdout.readline() == b"locked\n"
        for _ in range(3):
            with pytest.raises(Unavailable):
                await add(units)
        async with units.open(ME, "read") as uow:
            assert len((await uow.tasks.page(None, Window())).items) == 1
        await holder.communicate(b"")
        await add(units)
        assert sqlite_pool_of(units).in_use == 0
