"""Takes docs/pictures/console.png: `python -m tests.browser.picture`."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from latchkey.infrastructure.database.migrations import upgrade
from tests.browser.backend import Backend, running_backend
from tests.browser.browser_driver import BrowserDriver, browser_driver, find_chromium
from tests.fakes.model_server import model_server
from tests.schemas import DOCS

PICTURE = DOCS / "pictures" / "console.png"


async def take_picture(path: Path, driver: BrowserDriver, backend: Backend) -> None:
    """Chat in the console and write a picture of it. Its text is always the same, its times are not."""
    settings = {
        "user": backend.new_user("ada"),
        "url": backend.url,
        "picturePath": str(path),
        "contextOptions": {"viewport": {"width": 1280, "height": 660}, "deviceScaleFactor": 1.5},
    }
    await backend.reset()
    await driver.run("picture", "picture", settings, backend.handlers)


async def main() -> None:
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("Chromium is not installed: install the package `chromium` (Debian: apt-get install chromium)")
    with TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        database_url = f"sqlite+aiosqlite:///{home / 'latchkey.db'}"
        await asyncio.to_thread(upgrade, database_url)
        async with (
            model_server() as model,
            browser_driver(chromium) as driver,
            running_backend(home, database_url, driver.origin, model) as backend,
        ):
            await take_picture(PICTURE, driver, backend)


if __name__ == "__main__":
    asyncio.run(main())
