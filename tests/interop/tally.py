"""How much was really looked at: counted for each client, and held against what has to be."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

_PROPERTY = "checks"


class Checks:
    """What a test looks at and finds as it should be, in the name of a client."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def equal(self, of: str, what: str, seen: object, expected: object) -> None:
        assert seen == expected, f"{what}: expected {expected!r}, saw {seen!r}"
        self.passed(of)

    def passed(self, of: str, number: int = 1) -> None:
        self._node.user_properties.append((_PROPERTY, [of, number]))


@dataclass
class Tally:
    """A plugin of pytest: adds up what the tests that passed have looked at, wherever they ran.

    With `fewest`, a client for whom fewer checks were made, or made in vain, fails the whole.
    """

    fewest: dict[str, int]
    made: Counter[str]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    self._add(value)

    def _add(self, value: Any) -> None:
        of, number = value
        self.made[of] += number

    @property
    def lacking(self) -> list[str]:
        return [of for of, fewest in self.fewest.items() if self.made[of] < fewest]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.lacking and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("checks that were made, and held")
        for of, number in sorted(self.made.items()):
            terminalreporter.line(f"{number:5}  {of}")
        terminalreporter.line(f"{sum(self.made.values()):5}  in all")
        for of in self.lacking:
            line = f"FAILED  {of}: {self.made[of]} checks, and {self.fewest[of]} there must be"
            terminalreporter.line(line, red=True)
