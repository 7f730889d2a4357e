"""Connections break, run out and come back: a unit then works, or says `Unavailable`, and nothing stays broken."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import QueuePool, make_url
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.revision import is_at_head
from latchkey.infrastructure.database.sql import engine as engines
from latchkey.infrastructure.database.sql import pool as connections
from latchkey.infrastructure.database.sql.dialects import dialect_of
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.pool import ConnectionPool
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_task
from tests.integration.database.wire import Wire, wire_to

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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two connections, and a second to wait for one or for an answer."""
    for name, value in {"POOL_SIZE": 2, "POOL_TIMEOUT_S": 1, "STATEMENT_TIMEOUT_S": 1}.items():
        monkeypatch.setattr(engines, name, value)
    monkeypatch.setattr(connections, "POOL_TIMEOUT_S", 1)


async def add(units: SqlUnitsOfWork, title: str = "Buy milk") -> None:
    async with units.open(ME, "write") as uow:
        await uow.tasks.add(a_task(title))
        await uow.commit()


async def fill(engine: AsyncEngine, units: SqlUnitsOfWork) -> None:
    """Leave the pool with as many idle connections as it can hold."""
    async with AsyncExitStack() as open_units:
        for number in range(engines.POOL_SIZE):
            await open_units.enter_async_context(units.open(Owner(UserId(f"somebody-{number}")), "read"))
    assert pool(engine).checkedin() == engines.POOL_SIZE


def pool(engine: AsyncEngine) -> QueuePool:
    found = engine.sync_engine.pool
    assert isinstance(found, QueuePool)
    return found


async def kill_all(url: str) -> int:
    connection = await asyncpg.connect(url)
    killed = len(await connection.fetch(KILL))
    await connection.close()
    return killed


async def test_killed_idle_connections_cost_no_unit(postgresql_url: str, superuser_url: str) -> None:
    """As after a failover, with every connection of a full pool dead at once."""
    async with database(postgresql_url) as (engine, units):
        for _ in range(3):
            await fill(engine, units)
            assert await kill_all(superuser_url) == engines.POOL_SIZE
            await asyncio.gather(*(add(units) for _ in range(30)))
        assert pool(engine).checkedout() == 0

        async with units.open(ME, "read") as uow:
            assert len((await uow.tasks.page(None, Window(200))).items) == 90


async def test_a_connection_killed_during_a_unit_is_unavailable(postgresql_url: str, superuser_url: str) -> None:
    """Nothing of the unit has happened, and the next one works."""
    async with database(postgresql_url) as (engine, units):
        with pytest.raises(Unavailable):  # noqa: PT012 # a unit of work is one thing
            async with units.open(ME, "write") as uow:
                await uow.tasks.add(a_task("Lost"))
                await kill_all(superuser_url)
                await uow.tasks.page(None, Window())
        with pytest.raises(Unavailable):  # noqa: PT012 # a unit of work is one thing
            async with units.open(ME, "write") as uow:
                await uow.tasks.add(a_task("Lost"))
                await kill_all(superuser_url)
                await uow.commit()

        await add(units, "Kept")
        async with units.open(ME, "read") as uow:
            assert [task.title for task in (await uow.tasks.page(None, Window())).items] == ["Kept"]
        assert pool(engine).checkedout() == 0


async def test_a_connection_that_was_lost_is_made_anew(postgresql_url: str) -> None:
    """By whoever forgot to give it back: those who come after do not notice."""
    async with database(postgresql_url) as (engine, units):
        await add(units)
        lost = await ConnectionPool(engine, dialect_of(engine)).begin("BEGIN")
        with pytest.warns(SAWarning, match="non-checked-in"):  # noqa: PT031 # nothing is left of it but what is collected
            del lost
            gc.collect()

        for _ in range(3):
            await add(units)
        assert pool(engine).checkedout() == 0


async def test_a_probe_that_meets_a_dead_connection_is_no_trouble_to_others(
    postgresql_url: str, superuser_url: str
) -> None:
    """To the probe itself it is; the other connections are as dead, and whoever takes one finds that out."""
    async with database(postgresql_url) as (engine, units):
        async with units.open(ME, "read"), units.open(ME, "read"):
            pass
        await kill_all(superuser_url)
        with pytest.raises(DBAPIError):
            await is_at_head(engine)

        async with units.open(ME, "read") as one, units.open(ME, "read") as other:
            assert await one.tasks.page(None, Window()) == await other.tasks.page(None, Window())


async def test_connections_killed_at_any_moment_fail_no_unit_otherwise(postgresql_url: str, superuser_url: str) -> None:
    """Whatever the unit was doing, it says `Unavailable` and nothing else."""
    async with database(postgresql_url) as (engine, units):
        for _ in range(10):
            outcomes = asyncio.gather(*(add(units) for _ in range(20)), return_exceptions=True)
            await kill_all(superuser_url)
            assert {type(outcome) for outcome in await outcomes} <= {type(None), Unavailable}
        await add(units)
        assert pool(engine).checkedout() == 0


async def test_when_connections_run_out_a_unit_waits_and_then_is_unavailable(
    postgresql_url: str, impatient: None
) -> None:
    async with database(postgresql_url) as (engine, units):
        async with units.open(ME, "read"), units.open(ME, "read"):
            with pytest.raises(Unavailable):
                await add(units)
        await asyncio.gather(*(add(units) for _ in range(10)))
        assert pool(engine).checkedout() == 0


async def test_a_server_that_is_down_is_unavailable_until_it_is_back(postgresql_url: str, impatient: None) -> None:
    """Without a restart of ours, and without a connection lost on the way."""
    server_port = make_url(postgresql_url).port or 5432
    async with wire_to(server_port) as wire, database(through(wire, postgresql_url)) as (engine, units):
        for _ in range(3):
            await fill(engine, units)
            await wire.cut()
            for _ in range(4):
                with pytest.raises(Unavailable):
                    await add(units)
            await wire.mend()
            await asyncio.gather(*(add(units) for _ in range(10)))
        assert pool(engine).checkedout() == 0


async def test_a_server_that_falls_silent_is_unavailable(postgresql_url: str, impatient: None) -> None:
    """In the middle of a unit, and for those who come then."""
    server_port = make_url(postgresql_url).port or 5432
    async with wire_to(server_port) as wire, database(through(wire, postgresql_url)) as (engine, units):
        await add(units)
        with pytest.raises(Unavailable):  # noqa: PT012 # a unit of work is one thing
            async with units.open(ME, "write") as uow:
                wire.silence()
                await uow.tasks.page(None, Window())
        with pytest.raises(Unavailable):
            await add(units)
        await wire.mend()
        await add(units)
        assert pool(engine).checkedout() == 0


def through(wire: Wire, url: str) -> str:
    return make_url(url).set(port=wire.port).render_as_string(hide_password=False)


async def test_a_server_that_was_never_there_is_unavailable(impatient: None) -> None:
    async with database("postgresql://nobody@127.0.0.1:1/nothing") as (_, units):
        with pytest.raises(Unavailable):
            await add(units)


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    async with database(f"sqlite:///{tmp_path}/nowhere/latchkey.db") as (_, units):
        with pytest.raises(Unavailable):
            await add(units)
    # aiosqlite does not wait for the thread of a connection that it could not make.
    for thread in set(threading.enumerate()) - others:
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join)


LOCK = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


async def test_a_file_that_another_process_holds_is_unavailable(
    sqlite_url: str, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To writers, for as long as it does; readers are not disturbed."""
    monkeypatch.setattr(engines, "_PRAGMAS", (*engines._PRAGMAS, "busy_timeout=100"))
    async with database(sqlite_url) as (engine, units):
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
        assert pool(engine).checkedout() == 0
