"""What an adapter of `UnitsOfWork` supplies to be judged by these laws: `replica`. The rest follows from it.

To judge another adapter, run these tests with a `replica` of its own in the place of this one. They may share one
database, because each has people of its own.
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
    """Each call gives units of work on the same data, as another process of the service has them."""
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
def app(units: UnitsOfWork) -> Dispatcher:
    return Dispatcher(units, lambda _call: None)


@pytest.fixture
async def running_turn(replica: Replica, me: Owner) -> RunningTurn:
    """Of a turn that runs."""
    running_turn = RunningTurn([Dispatcher(replica(), lambda _call: None) for _ in range(2)], me)
    await running_turn.begin()
    return running_turn


@pytest.fixture
def me() -> Owner:
    return Owner(UserId(f"me-{uuid4().hex}"))


@pytest.fixture
def you() -> Owner:
    """Somebody else."""
    return Owner(UserId(f"you-{uuid4().hex}"))
