"""AG-UI clients work unmodified with the service: `@ag-ui/client` of both generations, CopilotKit and TanStack AI."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.browser.backend import Backend, running_backend
from tests.browser.browser_driver import BrowserDriver
from tests.fakes.model_server import ModelServer
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCENARIOS = FOLDER / "ag_ui"
VERSIONS = ["1.0.0", "0.0.59"]
_LONGEST_LINE = 2**24


def exported_functions(module: str) -> list[str]:
    source = (SCENARIOS / f"{module}.mjs").read_text()
    return re.findall(r"^export (?:async function|const) (\w+)", source, re.MULTILINE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver() -> AsyncIterator[BrowserDriver]:
    folder = await asyncio.to_thread(installed, SCENARIOS)
    process = await asyncio.create_subprocess_exec(
        node(), folder / "main.mjs", stdin=PIPE, stdout=PIPE, env=environment(), limit=_LONGEST_LINE
    )
    assert process.stdin
    assert process.stdout
    assert json.loads(await process.stdout.readline()) == {"ready": True}
    try:
        yield BrowserDriver("", process)
    finally:
        process.stdin.close()  # ends the process
        await process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    shared_database_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("ag_ui") / "home"
    home.mkdir()
    async with running_backend(home, shared_database_url, "http://127.0.0.1", shared_model) as backend:
        yield backend
        await backend.reset()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", exported_functions("http_agent"))
async def test_http_agent_scenario_succeeds(
    name: str, version: str, driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    await run("http_agent", name, driver, backend, version=version)
    checks.passed(f"@ag-ui/client {version}")


@pytest.mark.parametrize("name", exported_functions("tanstack"))
async def test_tanstack_scenario_succeeds(name: str, driver: BrowserDriver, backend: Backend, checks: Checks) -> None:
    await run("tanstack", name, driver, backend)
    checks.passed("TanStack AI")


@pytest.mark.parametrize("name", exported_functions("copilotkit"))
async def test_copilotkit_scenario_succeeds(name: str, driver: BrowserDriver, backend: Backend, checks: Checks) -> None:
    await run("copilotkit", name, driver, backend)
    checks.passed("CopilotKit")


async def run(module: str, name: str, driver: BrowserDriver, backend: Backend, **settings: str) -> None:
    await backend.reset()
    await driver.run(module, name, {"user": backend.new_user(), "url": backend.url, **settings}, backend.handlers)
