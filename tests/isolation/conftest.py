"""One service with three tenants per database, shared by the tests of this package."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from latchkey.config import Settings
from latchkey.domain.assistant import CHAT_TOOLS
from tests.isolation.tenants import Tenant, Tenants
from tests.support.service import run_service, settings_for


def asking_settings(database_url: str, folder: Path) -> Settings:
    """Settings of a service whose assistant asks the user before it stores a note."""
    assistants, tools = folder / "assistants.toml", [*CHAT_TOOLS, "remember"]
    assistants.write_text(f'[assistant.default]\ntools = {tools}\napprove = ["remember"]\n')
    return settings_for(database_url, LATCHKEY_ASSISTANTS=str(assistants))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenants(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tenants]:
    settings = asking_settings(shared_database_url, tmp_path_factory.mktemp("assistants"))
    async with run_service(settings, validate=False) as service:
        members = [await Tenant.create(service.user()) for _ in range(3)]
        yield Tenants(service, service.client, shared_database_url, *members)
