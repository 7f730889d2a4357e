"""A street on each database in turn, that the tests of this package share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.isolation.resident import Resident
from tests.isolation.street import Street
from tests.support.service import run_service, settings_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def street(shared_database_url: str) -> AsyncIterator[Street]:
    async with run_service(settings_for(shared_database_url), validate=False) as service:
        residents = [await Resident.moving_in(service.user()) for _ in range(3)]
        yield Street(service, service.client, shared_database_url, *residents)
