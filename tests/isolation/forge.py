"""Runs tests on mutants of the service, each in a process of its own: `python -m tests.isolation.forge`.

Each line of the standard input names a mutant and tests, as JSON; a line of the output tells how each test ended. The
libraries are imported once, and the service anew in each process, after the guard has been taken out.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = (
    *("advanced_alchemy", "agents", "aiosqlite", "alembic.command", "asyncpg", "hypothesis.stateful", "jsonschema"),
    *(
        "litestar.handlers",
        "mcp.server.lowlevel",
        "mcp.client.streamable_http",
        "openai",
        "pytest_asyncio",
        "structlog",
    ),
    *("mcp.server.streamable_http_manager", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql", "uvicorn"),
)

OPTIONS = (
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore:Module already imported:pytest.PytestWarning"),
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),  # what a failed test leaves open is its own affair
)


class Outcomes:
    """How each test ended: one that could not begin, or left something behind, is an error and not a failure."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.found[report.nodeid] = report.outcome
        elif report.outcome != "passed":
            self.found[report.nodeid] = "error"

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Tell it now: what a failed test has left open might yet spoil pytest's own end."""
        self._told.write_text(json.dumps({"exit": int(exitstatus), "outcomes": self.found}))


def tried(mutant: str, tests: list[str], log: Path) -> dict[str, Any]:
    """The exit code of pytest, and the outcome of each test, in a child of this process."""
    told = log.with_suffix(".json")
    told.write_text(json.dumps({"exit": None, "outcomes": {}}))
    child = os.fork()
    if child == 0:
        try:
            _try(mutant, tests, log, told)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def _try(mutant: str, tests: list[str], log: Path, told: Path) -> None:
    """What the tests say goes into the log."""
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(written, stream.fileno())
    for take_out in importlib.import_module("tests.isolation.mutants").MUTANTS[mutant]:
        take_out()
    pytest.main([*OPTIONS, *tests], plugins=[Outcomes(told)])


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(json.dumps(tried(asked["mutant"], asked["tests"], Path(asked["log"]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
