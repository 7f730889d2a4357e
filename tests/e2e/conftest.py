"""Fixtures for the program: an empty working folder, the settings with a migrated database, and a token."""

from pathlib import Path

import pytest

from tests.e2e.service_process import BASE_SETTINGS, Environment, run_command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty working folder. The output of programs is written to its parent."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def configured(database_url: str) -> Environment:
    """The settings of a service, with a migrated database of each kind in turn."""
    return {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": database_url}


@pytest.fixture
def token(home: Path, configured: Environment) -> str:
    """A JWT of the user `ada`."""
    return run_command("token", "ada", home=home, environment=configured).stdout.strip()
