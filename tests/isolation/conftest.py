"""One service with three tenants per database, shared by the tests of this package."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.isolation.tenants import Tenant, Tenants
from tests.support.service import run_service, settings_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenants(shared_database_url: str) -> AsyncIterator[Tenants]:
    async with run_service(settings_for(shared_database_url), validate=False) as service:
        members = [await Tenant.create(service.user()) for _ in range(3)]
        yield Tenants(service, service.client, shared_database_url, *members)
