"""A crowd of one caller's waits for its own; nobody else waits for it."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.credentials import Credential, Owner, TokenSecret, UserId
from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.sql import concurrency as shares
from latchkey.infrastructure.database.sql.concurrency import SLOTS_PER_CALLER
from latchkey.infrastructure.database.sql.engine import POOL_SIZE, create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.polling import TIMEOUT_S, wait_until

ME, YOU = Owner(UserId("me")), Owner(UserId("you"))
CROWD = 10 * POOL_SIZE


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def units(engine: AsyncEngine) -> SqlUnitsOfWork:
    return SqlUnitsOfWork(engine)


async def looks(units: SqlUnitsOfWork, who: Credential, until: Event) -> None:
    async with units.open(who, "read") as uow:
        await uow.tasks.page(None, Window())
        await until.wait()


def in_use(engine: AsyncEngine) -> int:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


async def is_full(engine: AsyncEngine) -> bool:
    return in_use(engine) == SLOTS_PER_CALLER


async def test_a_crowd_of_one_person_has_a_share_of_the_connections(engine: AsyncEngine, units: SqlUnitsOfWork) -> None:
    """And somebody else is served at once, as often as they ask."""
    enough = Event()
    crowd = [asyncio.create_task(looks(units, ME, enough)) for _ in range(CROWD)]
    await wait_until(lambda: is_full(engine))

    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(POOL_SIZE):
            async with units.open(YOU, "read"):
                assert in_use(engine) == SLOTS_PER_CALLER + 1

    enough.set()
    await asyncio.gather(*crowd)
    assert in_use(engine) == 0


async def test_made_up_tokens_do_not_stand_in_the_way_of_whom_they_name(units: SqlUnitsOfWork) -> None:
    """Each has a queue of its own, in which it is refused."""
    enough = Event()
    looking = [asyncio.create_task(looks(units, ME, enough)) for _ in range(SLOTS_PER_CALLER)]
    forged = [looks(units, TokenSecret.mint(ME.user_id), enough) for _ in range(CROWD)]

    async with asyncio.timeout(TIMEOUT_S):
        refused = await asyncio.gather(*forged, return_exceptions=True)

    assert all(isinstance(one, Unauthenticated) for one in refused)
    enough.set()
    await asyncio.gather(*looking)


async def test_who_waits_too_long_is_told_to_come_again(units: SqlUnitsOfWork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "QUEUE_S", 0.01)
    enough = Event()
    crowd = [asyncio.create_task(looks(units, ME, enough)) for _ in range(SLOTS_PER_CALLER + 1)]

    done, waiting = await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED, timeout=TIMEOUT_S)

    assert [type(one.exception()) for one in done] == [Unavailable]
    enough.set()
    await asyncio.gather(*waiting)
