"""Concurrency limits: many concurrent units of work of one user do not delay other users."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.application.context_tokens import mint_context_token
from latchkey.domain import concurrency
from latchkey.domain.concurrency import SLOTS_PER_CALLER
from latchkey.domain.credentials import TASKS_READ, Credential, NewContextToken, Owner, TokenSecret, UserId
from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.sql.driver import POOL_SIZE
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.sqlite import SQLite
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.polling import TIMEOUT_S, wait_until

ME, YOU = Owner(UserId("me")), Owner(UserId("you"))
MANY = 10 * POOL_SIZE


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def units(engine: AsyncEngine) -> SqlUnitsOfWork:
    return SqlUnitsOfWork(engine)


async def read_until(finished: Event, units: SqlUnitsOfWork, credential: Credential) -> None:
    async with units.open(credential, "read") as uow:
        await uow.tasks.page(None, Window())
        await finished.wait()


def connections_in_use(engine: AsyncEngine, units: SqlUnitsOfWork) -> int:
    if isinstance(units._backend, SQLite):
        return units._backend.pool.in_use
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


async def test_concurrent_units_of_work_of_one_user_use_few_connections(
    engine: AsyncEngine, units: SqlUnitsOfWork
) -> None:
    """Another user is served at once, each time."""
    finished = Event()
    mine = [asyncio.create_task(read_until(finished, units, ME)) for _ in range(MANY)]

    async def is_full() -> bool:
        return connections_in_use(engine, units) == SLOTS_PER_CALLER

    await wait_until(is_full)

    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(POOL_SIZE):
            async with units.open(YOU, "read"):
                assert connections_in_use(engine, units) == SLOTS_PER_CALLER + 1

    finished.set()
    await asyncio.gather(*mine)
    assert connections_in_use(engine, units) == 0


async def test_unverified_tokens_do_not_use_the_slots_of_the_user_they_name(units: SqlUnitsOfWork) -> None:
    """They have slots of their own, and are refused."""
    finished = Event()
    reading = [asyncio.create_task(read_until(finished, units, ME)) for _ in range(SLOTS_PER_CALLER)]
    forged = [read_until(finished, units, TokenSecret.mint(ME.user_id)) for _ in range(MANY)]

    async with asyncio.timeout(TIMEOUT_S):
        outcomes = await asyncio.gather(*forged, return_exceptions=True)

    assert all(isinstance(outcome, Unauthenticated) for outcome in outcomes)
    finished.set()
    await asyncio.gather(*reading)


async def test_units_of_work_of_one_user_leave_the_slots_for_unverified_tokens(
    engine: AsyncEngine, units: SqlUnitsOfWork, database_url: str
) -> None:
    """Whatever credentials the user has: their own, tokens of this process, and tokens of another process."""
    elsewhere = create_engine(database_url)
    minted = [await mint(SqlUnitsOfWork(elsewhere), ME) for _ in range(POOL_SIZE)]
    yours = await mint(SqlUnitsOfWork(elsewhere), YOU)
    await elsewhere.dispose()
    finished, credentials = Event(), list[Credential]([ME, *minted])
    mine = [asyncio.create_task(read_until(finished, units, credential)) for credential in credentials * 2]

    async def is_full() -> bool:
        return connections_in_use(engine, units) == 2 * SLOTS_PER_CALLER and units._backend.limiter.is_verified(
            minted[-1]
        )

    await wait_until(is_full)

    async with asyncio.timeout(TIMEOUT_S), units.open(yours, "read") as uow:
        assert uow.scope.user_id == YOU.user_id
    finished.set()
    await asyncio.gather(*mine)


async def mint(units: SqlUnitsOfWork, owner: Owner) -> TokenSecret:
    async with units.open(owner, "write") as uow:
        minted = await mint_context_token(uow, NewContextToken([TASKS_READ]))
        await uow.commit()
    return minted.secret


async def test_wait_for_a_slot_is_unavailable_after_timeout(
    units: SqlUnitsOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "QUEUE_S", 0.01)
    finished = Event()
    tasks = [asyncio.create_task(read_until(finished, units, ME)) for _ in range(SLOTS_PER_CALLER + 1)]

    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=TIMEOUT_S)

    assert [type(task.exception()) for task in done] == [Unavailable]
    finished.set()
    await asyncio.gather(*waiting)
