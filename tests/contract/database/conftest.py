"""What an adapter of `UnitsOfWork` supplies to be judged by these laws: `replica`. The rest follows from it.

To judge another adapter, run these tests with a `replica` of its own in the place of this one. They may share one
database, because each has people of its own.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from latchkey.application.application import Application
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.scope import Owner, UserId
from latchkey.infrastructure.database.engine import create_engine
from latchkey.infrastructure.database.unit import SqlUnitsOfWork
from tests.contract.database.course import Course
from tests.postgresql import PostgreSQL

Replica = Callable[[], UnitsOfWork]


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path_factory.mktemp('sqlite') / 'latchkey.db')}"


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"shared_{request.param}_url")
    return url


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
def app(units: UnitsOfWork) -> Application:
    return Application(units, lambda _call: None)


@pytest.fixture
async def course(replica: Replica, me: Owner) -> Course:
    """Of a turn that runs."""
    course = Course([Application(replica(), lambda _call: None) for _ in range(2)], me)
    await course.begin()
    return course


@pytest.fixture
def me() -> Owner:
    return Owner(UserId(f"me-{uuid4().hex}"))


@pytest.fixture
def you() -> Owner:
    """Somebody else."""
    return Owner(UserId(f"you-{uuid4().hex}"))
