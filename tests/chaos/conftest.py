"""One cluster per database and test module, and the model that its replicas use."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from latchkey.testing.postgresql import PostgreSQL
from tests.chaos.cluster import Cluster
from tests.chaos.postgresql_cluster import PostgresqlCluster
from tests.chaos.scripted_model import ScriptedModel, scripted_model
from tests.chaos.sqlite_cluster import SqliteCluster


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the replicas. Their logs are in its parent."""
    folder = tmp_path_factory.mktemp("chaos") / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def postgresql_database(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="module")
def sqlite_database(sqlite_template: Path, home: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, home.parent / 'latchkey.db')}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[ScriptedModel]:
    async with scripted_model() as model:
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sqlite_cluster(home: Path, sqlite_database: str, model: ScriptedModel) -> AsyncIterator[Cluster]:
    async with SqliteCluster(home, sqlite_database, model.base_url).up() as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgresql_cluster(home: Path, postgresql_database: str, model: ScriptedModel) -> AsyncIterator[Cluster]:
    async with PostgresqlCluster(home, postgresql_database, model.base_url).up() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    cluster: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return cluster
