"""Runs tests against the service with a safeguard removed: `python -m tests.isolation.mutation_runner`.

Each line of standard input is a JSON object with a mutation and tests. Each line of standard output is the outcome of
those tests. A mutation runs in a forked child: this process has imported the libraries only once, and the child imports
the service after it has removed the safeguard.
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
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),  # a failed test may leave resources open
)


class OutcomeRecorder:
    """A pytest plugin that writes the outcome of each test to a file. A failed set-up or tear-down is an error."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.outcomes[report.nodeid] = report.outcome
        elif report.outcome != "passed":
            self.outcomes[report.nodeid] = "error"

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the file now: resources that a failed test left open can still break the end of pytest."""
        self._file.write_text(json.dumps({"exit": int(exitstatus), "outcomes": self.outcomes}))


def run_tests(mutation: str, tests: list[str], log: Path) -> dict[str, Any]:
    """Run the tests in a forked child. Returns the exit code of pytest and the outcome of each test."""
    result_file = log.with_suffix(".json")
    result_file.write_text(json.dumps({"exit": None, "outcomes": {}}))
    child = os.fork()
    if child == 0:
        try:
            _run_in_child(mutation, tests, log, result_file)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


def _run_in_child(mutation: str, tests: list[str], log: Path, result_file: Path) -> None:
    """Redirect all output to the log, remove the safeguards, run pytest."""
    log_descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log_descriptor, stream.fileno())
    for apply in importlib.import_module("tests.isolation.mutations").MUTATIONS[mutation]:
        apply()
    pytest.main([*OPTIONS, *tests], plugins=[OutcomeRecorder(result_file)])


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        job = json.loads(line)
        sys.stdout.write(json.dumps(run_tests(job["mutation"], job["tests"], Path(job["log"]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
