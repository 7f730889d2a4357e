"""Waits for a user's lock on PostgreSQL end, and do not use up connections of other users."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.turns.finish import cancel_turn
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import TooManyTurns, Unavailable
from latchkey.domain.task import NewTask
from latchkey.infrastructure.database.sql.driver import POOL_SIZE
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS, a_task
from tests.turns import started_turn

ME, YOU = Owner(UserId("me")), Owner(UserId("you"))


class Process(NamedTuple):
    engine: AsyncEngine
    units: SqlUnitsOfWork
    app: Dispatcher

    @property
    def connections(self) -> int:
        """The number of connections in use."""
        pool = self.engine.sync_engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout()


@pytest.fixture
async def processes(postgresql_url: str) -> AsyncIterator[list[Process]]:
    engines = [create_engine(postgresql_url) for _ in range(2)]
    units = [SqlUnitsOfWork(engine) for engine in engines]
    yield [
        Process(engine, own, Dispatcher(own, lambda _call: None)) for engine, own in zip(engines, units, strict=True)
    ]
    for engine in engines:
        await engine.dispose()


async def test_idle_transaction_times_out_and_releases_its_locks(processes: list[Process]) -> None:
    """Waiters for its locks in another process continue after a few seconds."""
    here, there = processes
    hanging = await started_turn(here.app, ME)

    with pytest.raises(Unavailable):  # noqa: PT012 # the unit of work is one block
        async with here.units.open(hanging.secret, "write") as uow:
            await uow.tasks.add(a_task("Never kept"))
            cancelled = await there.app.call(ME, cancel_turn, hanging.turn.id)
            await uow.commit()

    assert cancelled.status == "cancelled"
    assert (await there.app.call(ME, list_tasks)).items == []
    assert (await here.app.call(ME, list_tasks)).items == []
    assert here.connections == 0


async def test_waiting_exclusive_units_of_work_of_one_user_hold_one_connection(processes: list[Process]) -> None:
    """Ten times as many as there are connections; other users are served without delay."""
    here, there = processes
    await here.app.call(ME, add_task, NewTask("Known here"))
    async with there.units.open(ME, "exclusive"):
        waiting = [asyncio.create_task(started_turn(here.app, ME)) for _ in range(10 * POOL_SIZE)]
        for _ in range(POOL_SIZE):
            await here.app.call(YOU, list_tasks)
            assert here.connections == 1

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(outcome, StartedTurn) for outcome in outcomes) == LIMITS.turns_per_user
    assert {type(outcome) for outcome in outcomes} == {StartedTurn, TooManyTurns}
    assert here.connections == 0


async def test_concurrent_turn_starts_of_several_users_do_not_block_each_other(processes: list[Process]) -> None:
    here, there = processes
    async with there.units.open(ME, "exclusive"):
        mine = [asyncio.create_task(started_turn(here.app, ME)) for _ in range(LIMITS.turns_per_user)]
        yours = await asyncio.gather(*(started_turn(here.app, YOU) for _ in range(LIMITS.turns_per_user)))
        assert not any(task.done() for task in mine)
    assert len({turn.turn.id for turn in [*yours, *await asyncio.gather(*mine)]}) == 2 * LIMITS.turns_per_user
