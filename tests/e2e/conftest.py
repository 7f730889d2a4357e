"""Where the program is started: an empty folder, with a database of each kind that it might be told of."""

from pathlib import Path

import pytest

from tests.e2e.service_process import BASE_SETTINGS, Environment, run_command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder. What programs say is kept beside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def configured(database_url: str) -> Environment:
    """All that a service must be told, with a migrated database of each kind in turn."""
    return {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": database_url}


@pytest.fixture
def token(home: Path, configured: Environment) -> str:
    """Of the user `ada`."""
    return run_command("token", "ada", home=home, environment=configured).stdout.strip()
