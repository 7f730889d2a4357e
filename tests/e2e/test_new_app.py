"""`latchkey new`: the folder of a small app, which is formatted, typed, served and tested as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder), **variables}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def bikes(tmp_path: Path) -> Path:
    made = run(str(BIN / "latchkey"), "new", "bikes", folder=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    return tmp_path / "bikes"


def test_new_app_is_small_formatted_and_typed(bikes: Path) -> None:
    texts = {path: path.read_text() for path in bikes.rglob("*") if path.is_file()}
    checks = [("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy", "--strict", "bikes", "tests")]
    results = [run(str(BIN / command[0]), *command[1:], folder=bikes) for command in checks]

    assert [result.stdout for result in results if result.returncode] == []
    assert sum(len(text.splitlines()) for text in texts.values()) < 400
    assert [path for path, text in texts.items() if "shop" in text.lower() or "shop" in path.name] == []


def test_new_app_is_migrated_and_its_tests_pass_on_sqlite(bikes: Path) -> None:
    database = f"sqlite+aiosqlite:///{bikes}/latchkey.db"
    migrated = run(str(BIN / "latchkey"), "migrate", folder=bikes, LATCHKEY_DATABASE_URL=database)
    revision = run(str(BIN / "latchkey"), "revision", "-m", "more", folder=bikes, LATCHKEY_DATABASE_URL=database)
    plugin = ["-W", "ignore", "-k", "sqlite", "-q"]
    tests = run(sys.executable, "-m", "pytest", *plugin, folder=bikes)

    assert "the schema of the app was migrated from revision none to 0001" in migrated.stdout
    assert "nothing to do" in revision.stdout
    assert tests.returncode == 0, tests.stdout[-3000:]


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("bikes", 1, "bikes: exists already"),
        ("json", 2, "there is one called json"),
        ("Big-Name", 2, "NAME must be the name of a Python package"),
        ("class", 2, "NAME must be the name of a Python package"),
        ("../up", 2, "NAME must be the name of a Python package"),
    ],
)
def test_new_app_with_unusable_name_is_refused(tmp_path: Path, name: str, code: int, expected: str) -> None:
    (tmp_path / "bikes").mkdir()
    made = run(str(BIN / "latchkey"), "new", name, folder=tmp_path)

    assert made.returncode == code
    assert expected in made.stderr
    assert "Traceback" not in made.stderr
