"""A scene for each test, with a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.claude.scene import Scene, a_scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with a_scene(folder) as scene:
        yield scene
