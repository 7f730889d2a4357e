"""One Better Auth server for all tests here: each brings people who have just signed up."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.identity.better_auth import BetterAuth, Member, better_auth


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BetterAuth]:
    with better_auth(tmp_path_factory.mktemp("better_auth") / "log") as provider:
        yield provider


@pytest.fixture
async def ada(provider: BetterAuth) -> AsyncIterator[Member]:
    async with provider.browser() as browser:
        yield await provider.signed_up(browser)


@pytest.fixture
async def bob(provider: BetterAuth) -> AsyncIterator[Member]:
    """Somebody else."""
    async with provider.browser() as browser:
        yield await provider.signed_up(browser)
