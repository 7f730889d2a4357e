"""A street on each database in turn, that the tests of this package share."""

from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio

from tests.integration.http.service import BASE_URL, Person, serving, settings_for
from tests.isolation.resident import Resident
from tests.isolation.street import Street


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def street(shared_database_url: str) -> AsyncIterator[Street]:
    async with serving(settings_for(shared_database_url)) as service:
        transport = httpx2.ASGITransport(app=service.asgi)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            people = [service.person() for _ in range(3)]
            residents = [await Resident.moving_in(Person(one.user_id, one.token, client)) for one in people]
            yield Street(service, client, shared_database_url, *residents)
