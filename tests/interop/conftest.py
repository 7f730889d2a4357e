"""A service for the clients to come to, and a count of what they were seen to do there."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.place import Place, a_place
from tests.interop.tally import Checks, Tally

FOLDER = Path(__file__).parent
FEWEST = {
    "Claude CLI": 30,
    "Inspector CLI": 60,
    "OpenAI Agents SDK": 32,
    "Python SDK": 96,
    "TypeScript SDK 1": 31,
    "TypeScript SDK 2": 96,
    "conformance suite, 2025-11-25": 36,
    "conformance suite, 2026-07-28": 90,
    "examples of docs/mcp-clients.md": 14,
    "fastmcp": 96,
}
"""Checks that a whole run makes. Fewer, and something was left out without anybody saying so."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These take programs from npm and minutes: they run for whoever names them, and not for `pytest` alone."""
    return None if _asked_for(config) else True


def pytest_configure(config: pytest.Config) -> None:
    if _asked_for(config) and not hasattr(config, "workerinput"):
        everything = not config.option.keyword and [Path(one).resolve() for one in config.args] == [FOLDER]
        config.pluginmanager.register(Tally(FEWEST if everything else {}, Counter()))


def _asked_for(config: pytest.Config) -> bool:
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return any(path.is_relative_to(FOLDER) for path in named)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("interop") / "home"
    home.mkdir()
    with a_place(home) as place:
        yield place


@pytest.fixture
def checks(request: pytest.FixtureRequest) -> Checks:
    return Checks(request.node)
