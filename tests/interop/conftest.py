"""A service for the clients, and a count of the checks per client."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.check_counter import CheckCounter, Checks
from tests.interop.service import InteropService, interop_service
from tests.requested import is_requested

FOLDER = Path(__file__).parent
MINIMUM_CHECKS = {
    "@ag-ui/client 0.0.59": 40,
    "@ag-ui/client 1.0.0": 40,
    "@hey-api/openapi-ts with zod": 9,
    "AI SDK 5.0.14": 78,
    "AI SDK 5.0.277": 78,
    "AI SDK 6": 78,
    "AI SDK 7": 78,
    "Claude CLI": 30,
    "CopilotKit": 8,
    "Inspector CLI": 60,
    "Mastra": 60,
    "OpenAI Agents SDK": 32,
    "Python SDK": 111,
    "Python client": 64,
    "TanStack AI": 14,
    "TypeScript SDK 1": 36,
    "TypeScript SDK 2": 111,
    "TypeScript client": 60,
    "conformance suite, 2025-11-25": 36,
    "conformance suite, 2026-07-28": 96,
    "examples of docs/ag-ui.md": 6,
    "examples of docs/mcp-clients.md": 14,
    "examples of docs/openai-api.md": 28,
    "fastmcp": 111,
    "openai 6 (JavaScript)": 160,
    "openai 7 (JavaScript)": 160,
    "openapi-typescript": 6,
    "reducers of AG-UI clients": 6,
    "schema libraries": 68,
}
"""The number of checks in a complete run. With fewer, some were silently skipped."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These tests need npm packages and minutes, so they run only if the command line names them."""
    return None if is_requested(config, FOLDER) else True


def pytest_configure(config: pytest.Config) -> None:
    if is_requested(config, FOLDER) and not hasattr(config, "workerinput"):
        is_complete = not config.option.keyword and [Path(one).resolve() for one in config.args] == [FOLDER]
        config.pluginmanager.register(CheckCounter(MINIMUM_CHECKS if is_complete else {}, Counter()))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropService]:
    home = tmp_path_factory.mktemp("interop") / "home"
    home.mkdir()
    with interop_service(home) as service:
        yield service


@pytest.fixture
def checks(request: pytest.FixtureRequest) -> Checks:
    return Checks(request.node)
