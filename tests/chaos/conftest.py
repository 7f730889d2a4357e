"""A cluster on each database, which the tests of a module share, and the model that it asks."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.chaos.clockwork import Clockwork, clockwork
from tests.chaos.cluster import Cluster
from tests.chaos.postgresql_cluster import PostgresqlCluster
from tests.chaos.sqlite_cluster import SqliteCluster
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that replicas are started in. What they say is kept beside it."""
    folder = tmp_path_factory.mktemp("chaos") / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def postgresql_database(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="module")
def sqlite_database(sqlite_template: Path, place: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, place.parent / 'latchkey.db')}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[Clockwork]:
    async with clockwork() as model:
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sqlite_cluster(place: Path, sqlite_database: str, model: Clockwork) -> AsyncIterator[Cluster]:
    async with SqliteCluster(place, sqlite_database, model.base_url).up() as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgresql_cluster(place: Path, postgresql_database: str, model: Clockwork) -> AsyncIterator[Cluster]:
    async with PostgresqlCluster(place, postgresql_database, model.base_url).up() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found
