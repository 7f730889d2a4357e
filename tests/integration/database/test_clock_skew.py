"""Clock skew: replicas use the database's time, and what one with a slow clock does with a turn that has expired."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task
from latchkey.application.turns.expire import expire_turns
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.application.turns.resume import resume_turn
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Conflict, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database import clock
from latchkey.infrastructure.database.clock import measure_clock_offset, synchronized_clock
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.testing.processes import free_port
from tests.builders import LIMITS
from tests.contract.database.running_turn import RunningTurn
from tests.polling import TIMEOUT_S
from tests.turns import profiles_of

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


async def test_turn_that_is_continued_is_lost_for_the_replica_with_slow_clock(replicas: Replicas) -> None:
    """By its clock the lease of its attempt, and the token, are still valid."""
    running_turn = replicas.running_turn
    limits = replace(LIMITS, attempts=2)
    started = await running_turn.dispatchers[1].call(ME, resume_turn, running_turn.id, profiles_of(), limits)

    assert started
    with pytest.raises(Unauthenticated):
        await running_turn.add("Late", call_id="c1")
    with pytest.raises(Conflict):
        await running_turn.append_text("Late")
    with pytest.raises(Conflict):
        await running_turn.renew(timedelta(minutes=1))
    with pytest.raises(Conflict):
        await running_turn.finish()
    assert await running_turn.event_names() == ["turn.started", "turn.resumed"]
    assert await running_turn.task_titles() == []


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


FAST = timedelta(seconds=30)
LEASE = timedelta(seconds=20)


class FastReplica:
    """A replica whose machine's clock is ahead, and the running turn of another replica."""

    def __init__(self, engine: AsyncEngine, units: SqlUnitsOfWork, running_turn: RunningTurn) -> None:
        self.engine = engine
        self.units = units
        self.running_turn = running_turn


@pytest.fixture
async def fast_replica(postgresql_url: str) -> AsyncIterator[FastReplica]:
    engines = [create_engine(postgresql_url) for _ in range(2)]
    fast = SqlUnitsOfWork(engines[1], now=lambda: datetime.now(UTC) + FAST)
    dispatchers = [Dispatcher(units, lambda _call: None) for units in (SqlUnitsOfWork(engines[0]), fast)]
    running_turn = RunningTurn(dispatchers, ME)
    await running_turn.start(terms=replace(LIMITS, lease=LEASE))
    yield FastReplica(engines[1], fast, running_turn)
    for engine in engines:
        await engine.dispose()


async def test_clock_ahead_of_database_expires_no_turn_of_another_replica(fast_replica: FastReplica) -> None:
    """Units of work use the database's time. Without the correction, the turn would have expired."""
    async with synchronized_clock(fast_replica.engine, fast_replica.units):
        turn = await fast_replica.running_turn.read(on=1)
        added = await fast_replica.running_turn.add("Milk", on=1)
    measured, fast_replica.units.clock_offset = fast_replica.units.clock_offset, timedelta()
    expired = await fast_replica.running_turn.read(on=1)

    assert (turn.status, added.is_error) == ("running", False)
    assert abs(measured + FAST) < timedelta(seconds=1)
    assert expired.status == "interrupted"


async def test_clock_offset_is_logged_and_measured_again(
    fast_replica: FastReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_INTERVAL_S", 0.01)
    with capture_logs() as lines:
        async with synchronized_clock(fast_replica.engine, fast_replica.units):
            async with asyncio.timeout(TIMEOUT_S):
                while len(lines) < 2:
                    await measure_clock_offset(fast_replica.engine, fast_replica.units)

    assert {line["event"] for line in lines} == {"clock_offset"}
    assert all(abs(line["offset_s"] + FAST.total_seconds()) < 1 for line in lines)


async def test_right_clock_is_not_corrected(postgresql_url: str) -> None:
    """The error of the measurement is not taken for an offset, so that times do not jump."""
    engine = create_engine(postgresql_url)
    units = SqlUnitsOfWork(engine)
    with capture_logs() as lines:
        async with synchronized_clock(engine, units):
            assert units.clock_offset == timedelta()
    await engine.dispose()
    assert lines == []


async def test_unreachable_database_keeps_the_last_clock_offset(
    fast_replica: FastReplica,
) -> None:
    """The service starts and goes on, and measures again once a second."""
    unreachable = create_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    fast_replica.units.clock_offset = -FAST
    with capture_logs() as lines:
        async with synchronized_clock(unreachable, fast_replica.units):
            assert fast_replica.units.clock_offset == -FAST
    await unreachable.dispose()
    assert [line["event"] for line in lines] == ["clock_offset_unknown"]
