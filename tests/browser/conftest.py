"""One browser, and one service on each database, for all scenarios."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser.backend import Backend, running_backend
from tests.browser.browser_driver import BrowserDriver, browser_driver, find_chromium
from tests.fakes.model_server import ModelServer
from tests.requested import is_requested


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These tests need Chromium, npm packages and minutes, so they run only if the command line names them."""
    return None if is_requested(config, Path(__file__).parent) else True


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver() -> AsyncIterator[BrowserDriver]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("Chromium is not installed: install the package `chromium` (Debian: apt-get install chromium)")
    async with browser_driver(chromium) as driver:
        yield driver


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    driver: BrowserDriver, shared_sqlite_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("browser") / "home"
    home.mkdir()
    async with running_backend(home, shared_sqlite_url, driver.origin, shared_model) as backend:
        yield backend


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgresql_backend(
    driver: BrowserDriver,
    shared_postgresql_url: str,
    shared_model: ModelServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("browser_postgresql") / "home"
    home.mkdir()
    async with running_backend(home, shared_postgresql_url, driver.origin, shared_model) as backend:
        yield backend
