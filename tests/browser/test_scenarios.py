"""Each function that a module in `scenarios` exports is a test, in Chromium with the real service."""

import re
from collections.abc import Iterator

import pytest

from tests.browser.backend import Backend
from tests.browser.browser_driver import FOLDER, BrowserDriver, install_page

pytestmark = pytest.mark.asyncio(loop_scope="session")


def exported_functions() -> Iterator[tuple[str, str]]:
    for path in sorted((FOLDER / "scenarios").glob("*.mjs")):
        for match in re.finditer(r"^export async function (\w+)", path.read_text(), re.MULTILINE):
            yield path.stem, match[1]


@pytest.mark.parametrize(
    ("module", "name"), [pytest.param(*names, id="-".join(names)) for names in exported_functions()]
)
async def test_scenario_in_browser_succeeds(module: str, name: str, driver: BrowserDriver, backend: Backend) -> None:
    await run(module, name, driver, backend)


@pytest.mark.parametrize("name", ["tool", "killed_service"])
async def test_scenario_in_browser_on_postgresql_succeeds(
    name: str, driver: BrowserDriver, postgresql_backend: Backend
) -> None:
    await run("rest", name, driver, postgresql_backend)


async def run(module: str, name: str, driver: BrowserDriver, backend: Backend) -> None:
    await install_page(module)
    await backend.reset()
    await driver.run(f"scenarios/{module}", name, {"user": backend.new_user(), "url": backend.url}, backend.handlers)
