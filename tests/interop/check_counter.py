"""Counts the checks per client, and compares the counts with required minimums."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

_PROPERTY = "checks"


class Checks:
    """The checks of one test. Each check belongs to a client."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def equal(self, client: str, name: str, actual: object, expected: object) -> None:
        assert actual == expected, f"{name}: expected {expected!r}, got {actual!r}"
        self.passed(client)

    def passed(self, client: str, number: int = 1) -> None:
        self._node.user_properties.append((_PROPERTY, [client, number]))


@dataclass(eq=False)  # pytest keeps its plugins in sets
class CheckCounter:
    """A pytest plugin that adds up the checks of all passed tests, from all xdist workers.

    The run fails if a client has fewer checks than its minimum.
    """

    minimum: dict[str, int]
    counts: Counter[str]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    self._add(value)

    def _add(self, value: Any) -> None:
        client, number = value
        self.counts[client] += number

    @property
    def insufficient(self) -> list[str]:
        return [client for client, minimum in self.minimum.items() if self.counts[client] < minimum]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.insufficient and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("passed checks per client")
        for client, number in sorted(self.counts.items()):
            terminalreporter.line(f"{number:5}  {client}")
        terminalreporter.line(f"{sum(self.counts.values()):5}  in total")
        for client in self.insufficient:
            line = f"FAILED  {client}: {self.counts[client]} checks, required are {self.minimum[client]}"
            terminalreporter.line(line, red=True)
