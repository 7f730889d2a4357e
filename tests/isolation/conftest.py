"""A street on each database in turn, that the tests of this package share."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.integration.http.service import BASE_URL, Person, serving, settings_for
from tests.isolation.resident import Resident
from tests.isolation.street import Street
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path_factory.mktemp('isolation') / 'latchkey.db')}"


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"shared_{request.param}_url")
    return url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def street(shared_database_url: str) -> AsyncIterator[Street]:
    async with serving(settings_for(shared_database_url)) as service:
        transport = httpx2.ASGITransport(app=service.asgi)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            people = [service.person() for _ in range(3)]
            residents = [await Resident.moving_in(Person(one.user_id, one.token, client)) for one in people]
            yield Street(service, client, shared_database_url, *residents)
