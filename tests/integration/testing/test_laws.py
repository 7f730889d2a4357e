"""The laws that `latchkey.testing` runs on a team's app find every fault, and a correct app keeps them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAWS = """
import pytest
from latchkey.testing import AppLaws

@pytest.fixture
def latchkey_examples():
    return {"choose_wood": {"wood_id": "018f0000-0000-7000-8000-000000000001"}}

class TestLaws(AppLaws):
    pass
"""


def run_laws(
    folder: Path, fault: str, selection: str, app: str = "tests.apps.wrong_boxes:app"
) -> subprocess.CompletedProcess[str]:
    (folder / "test_laws.py").write_text(LAWS)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "--show-capture=no"]
    options = ["-p", "no:cacheprovider", "-W", "ignore", "--latchkey-app", app]
    variables = {**os.environ, "BOX_FAULT": fault, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *options, "-k", selection],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("fault", "law", "message"),
    [
        ("global state", "no_answer_has_data", "list_boxes answers one user with data of another"),
        ("forgotten scope", "no_answer_has_data", "list_boxes answers one user with data of another"),
        ("foreign ids", "id_of_another_user", "remove_box with box_id of another user answers"),
        ("read that writes", "every_operation_succeeds", "No call of list_boxes succeeds"),
        ("named user", "query_cannot_name", "list_boxes_of takes a user as an argument"),
    ],
)
def test_law_finds_fault_of_a_wrong_app(tmp_path: Path, fault: str, law: str, message: str) -> None:
    """On SQLite, where the tenant guard alone protects a user."""
    laws = run_laws(tmp_path, fault, f"{law} and sqlite")

    assert laws.returncode == 1, laws.stdout + laws.stderr
    assert message in laws.stdout


def test_laws_hold_for_a_correct_app_on_both_databases(tmp_path: Path) -> None:
    laws = run_laws(tmp_path, "none", "Laws")

    assert laws.returncode == 0, laws.stdout + laws.stderr
    assert "sqlite" not in laws.stdout
    assert "skipped" not in laws.stdout


def test_laws_hold_for_an_app_whose_tools_ask_the_user(tmp_path: Path) -> None:
    """The user of the laws approves each call."""
    laws = run_laws(tmp_path, "none", "Laws and sqlite", "tests.apps.guarded:app")

    assert laws.returncode == 0, laws.stdout + laws.stderr
