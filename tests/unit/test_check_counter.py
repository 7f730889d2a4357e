"""The counter of interop checks works as a pytest plugin."""

from collections import Counter

import pytest

from tests.interop.check_counter import CheckCounter


def test_check_counter_can_be_left_out_of_a_hook_call() -> None:
    """As pytest does with the plugins of folders that a test is not in. Their set needs a hash."""
    manager = pytest.PytestPluginManager()
    counter = CheckCounter({}, Counter())
    manager.register(counter)

    caller = manager.subset_hook_caller("pytest_terminal_summary", remove_plugins=[counter])

    assert caller.get_hookimpls() == []


def test_check_counter_with_too_few_checks_names_the_client() -> None:
    assert CheckCounter({"ajv": 2, "zod": 3}, Counter({"ajv": 2, "zod": 2})).insufficient == ["zod"]
