"""One service with three tenants per database, shared by the tests of this package."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.isolation.tenants import Tenant, Tenants
from tests.support.service import run_service, settings_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenants(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tenants]:
    """The assistant asks the user before it lists tasks."""
    assistants = tmp_path_factory.mktemp("assistants") / "assistants.toml"
    assistants.write_text('[assistant.default]\napprove = ["list_tasks"]\n')
    settings = settings_for(shared_database_url, LATCHKEY_ASSISTANTS=str(assistants))
    async with run_service(settings, validate=False) as service:
        members = [await Tenant.create(service.user()) for _ in range(3)]
        yield Tenants(service, service.client, shared_database_url, *members)
