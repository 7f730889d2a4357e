"""A service with a scripted model, and the TypeScript package as npm installs it."""

import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser.backend import Backend, running_backend
from tests.fakes.model_server import ModelServer
from tests.interop.latchkey_clients.calls import TYPESCRIPT, copy_sources, run_npm


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    shared_sqlite_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("clients") / "home"
    home.mkdir()
    async with running_backend(home, shared_sqlite_url, "http://localhost", shared_model) as backend:
        yield backend


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the TypeScript package as npm would install it."""
    sources = copy_sources(tmp_path_factory.mktemp("package"))
    run_npm(sources, "run", "build")
    run_npm(sources, "pack", "--ignore-scripts", "--silent")
    (archive,) = sources.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(sources / "unpacked", filter="data")
    folder = sources / "unpacked" / "package"
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    return folder
