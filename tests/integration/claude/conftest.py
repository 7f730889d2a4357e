"""Fixtures: a harness for each test, with a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.claude.claude_harness import ClaudeHarness, claude_harness


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
async def harness(folder: Path) -> AsyncIterator[ClaudeHarness]:
    async with claude_harness(folder) as harness:
        yield harness
