"""Clock skew: a replica with a slow clock still runs a turn that another replica has expired."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task
from latchkey.application.turns.expire import expire_turns
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Conflict, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.running_turn import RunningTurn

ME, YOU = Owner(UserId("me")), Owner(UserId("you"))
SLOW = timedelta(minutes=3)
"""The clock skew, longer than a lease."""


class Replicas:
    """`slow` is behind, and `running_turn` is that of a turn which it runs, and which is lost by the other's clock."""

    def __init__(self, slow: SqlUnitsOfWork, right: SqlUnitsOfWork) -> None:
        self.slow = slow
        self.running_turn = RunningTurn([Dispatcher(units, lambda _call: None) for units in (slow, right)], ME)


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[Replicas]:
    engines = [create_engine(database_url) for _ in range(2)]
    slow = SqlUnitsOfWork(engines[0], now=lambda: datetime.now(UTC) - SLOW)
    replicas = Replicas(slow, SqlUnitsOfWork(engines[1]))
    await replicas.running_turn.start()
    # Both are connected, and neither is late for that.
    await replicas.running_turn.dispatchers[1].call(YOU, expire_turns)
    yield replicas
    for engine in engines:
        await engine.dispose()


async def test_event_written_while_turn_expires_precedes_its_end(replicas: Replicas) -> None:
    """The replica that expires the turn waits for the write; the events have no gap."""
    running_turn = replicas.running_turn
    async with replicas.slow.open(ME, "write") as uow:
        await append_events(uow, running_turn.id, EventBatch(0, "Late", Usage(1, 2, 3)))
        looking = asyncio.create_task(running_turn.read(on=1))
        # Each of these is an exchange with the database: time enough for a look that would not wait.
        for _ in range(200):
            await uow.tasks.page(None, Window())
        await uow.commit()
    found = await looking

    assert (found.status, found.usage) == ("interrupted", Usage(1, 2, 3))
    assert await running_turn.event_names() == ["turn.started", "message.delta", "turn.interrupted"]
    assert [event.seq for event in await running_turn.events()] == [1, 2, 3]


async def test_expired_turn_has_ended_for_replica_with_slow_clock(replicas: Replicas) -> None:
    """Its token is invalid there too, and nothing is written."""
    running_turn = replicas.running_turn
    await running_turn.read(on=1)

    with pytest.raises(Unauthenticated):
        await running_turn.add()
    with pytest.raises(Unauthenticated):
        await running_turn.dispatchers[0].call(running_turn.started.secret, add_task, NewTask("Too late"))
    for attempt in (running_turn.append_text("Late"), running_turn.renew(timedelta(minutes=1)), running_turn.finish()):
        with pytest.raises(Conflict):
            await attempt
    assert await running_turn.event_names() == ["turn.started", "turn.interrupted"]
    assert await running_turn.task_titles() == []
