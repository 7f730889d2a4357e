"""Fixtures of the contract suite of `UnitsOfWork`: an adapter supplies `replica`, the other fixtures build on it.

To check another adapter, run these tests with its own `replica` fixture. The replicas may share one database, because
each test has users of its own.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.ports import UnitsOfWork
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.running_turn import RunningTurn

Replica = Callable[[], UnitsOfWork]


@pytest.fixture
async def replica(shared_database_url: str) -> AsyncIterator[Replica]:
    """Return a factory: each call makes the units of work of another process on the same database."""
    async with AsyncExitStack() as closing:

        def new_replica() -> UnitsOfWork:
            engine = create_engine(shared_database_url)
            closing.push_async_callback(engine.dispose)
            return SqlUnitsOfWork(engine)

        yield new_replica


@pytest.fixture
def units(replica: Replica) -> UnitsOfWork:
    return replica()


@pytest.fixture
def dispatcher(units: UnitsOfWork) -> Dispatcher:
    return Dispatcher(units, lambda _call: None)


@pytest.fixture
async def running_turn(replica: Replica, me: Owner) -> RunningTurn:
    """A started turn on two replicas."""
    running_turn = RunningTurn([Dispatcher(replica(), lambda _call: None) for _ in range(2)], me)
    await running_turn.start()
    return running_turn


@pytest.fixture
def me() -> Owner:
    return Owner(UserId(f"me-{uuid4().hex}"))


@pytest.fixture
def you() -> Owner:
    """Another user."""
    return Owner(UserId(f"you-{uuid4().hex}"))
