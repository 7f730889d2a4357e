"""The number of statements, transactions and round trips of each operation equals the budget."""

from pathlib import Path

import pytest

from tests.costs.budget import FILE, HELP, changes, read_budget
from tests.costs.measure import Cost
from tests.costs.operations import OPERATIONS
from tests.costs.subprocess_measurement import measure_in_subprocess


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_costs_of_operations_equal_the_budget(
    kind: str, model_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")

    lines = changes(read_budget(kind), measure_in_subprocess(url, model_url, tmp_path / "log"))

    assert lines == [], HELP.format(kind=kind, changes="\n".join(lines), file=FILE.name)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_budget_has_all_operations(kind: str) -> None:
    assert read_budget(kind).keys() == OPERATIONS.keys()


def test_changes_report_more_and_fewer_statements() -> None:
    """A saving must be written down too, so that it cannot be lost unnoticed."""
    budget = {"rest_add_task": Cost(1, 3, 3)}

    assert changes(budget, {"rest_add_task": Cost(1, 4, 3)}) == ["rest_add_task: statements 3 -> 4"]
    assert changes(budget, {"rest_add_task": Cost(1, 3, 2)}) == ["rest_add_task: round_trips 3 -> 2"]
