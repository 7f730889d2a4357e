"""One Better Auth server per session; each test signs up its own users."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.identity.better_auth import BetterAuth, SignedUpUser, better_auth


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BetterAuth]:
    with better_auth(tmp_path_factory.mktemp("better_auth") / "log") as provider:
        yield provider


@pytest.fixture
async def ada(provider: BetterAuth) -> AsyncIterator[SignedUpUser]:
    async with provider.browser() as browser:
        yield await provider.sign_up(browser)


@pytest.fixture
async def bob(provider: BetterAuth) -> AsyncIterator[SignedUpUser]:
    """Another user."""
    async with provider.browser() as browser:
        yield await provider.sign_up(browser)
