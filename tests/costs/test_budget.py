"""What every request pays for is counted, never timed: no statement or wasteful loop comes by accident."""

from pathlib import Path

import pytest

from tests.costs.budget import ADVICE, FILE, budget, changes
from tests.costs.figures import Cost
from tests.costs.measuring import measured
from tests.costs.operations import OPERATIONS


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_operation_costs_what_the_budget_says(
    kind: str, model_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")

    found = changes(budget(kind), measured(url, model_url, tmp_path / "log"))

    assert found == [], ADVICE.format(kind=kind, changes="\n".join(found), file=FILE.name)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_budget_is_of_the_operations_that_are_measured(kind: str) -> None:
    assert budget(kind).keys() == OPERATIONS.keys()


def test_one_statement_more_is_seen_and_one_less_too() -> None:
    """So that a saving is written down, and cannot be lost again unseen."""
    allowed = {"rest_add_task": Cost(1, 3, 3, 1000)}

    assert changes(allowed, {"rest_add_task": Cost(1, 4, 3, 1000)}) == ["rest_add_task: statements 3 -> 4"]
    assert changes(allowed, {"rest_add_task": Cost(1, 3, 2, 1000)}) == ["rest_add_task: round_trips 3 -> 2"]


def test_a_tenth_more_of_allocations_is_let_pass_and_not_more() -> None:
    allowed = {"rest_add_task": Cost(1, 3, 3, 1000)}

    assert changes(allowed, {"rest_add_task": Cost(1, 3, 3, 1100)}, 1.1) == []
    assert changes(allowed, {"rest_add_task": Cost(1, 3, 3, 1101)}, 1.1) == ["rest_add_task: allocations 1000 -> 1101"]
