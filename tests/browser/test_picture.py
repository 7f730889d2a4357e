"""The script that takes the README's picture works."""

from pathlib import Path

import pytest

from tests.browser.backend import Backend
from tests.browser.browser_driver import BrowserDriver
from tests.browser.picture import take_picture


@pytest.mark.asyncio(loop_scope="session")
async def test_picture_of_console_is_taken(driver: BrowserDriver, backend: Backend, tmp_path: Path) -> None:
    await take_picture(tmp_path / "console.png", driver, backend)

    assert (tmp_path / "console.png").read_bytes().startswith(b"\x89PNG")
