"""The wheel works where nothing of the source tree is."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx2
import pytest

from tests.process_supervision import Account, free_port, supervised

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"LATCHKEY_AUTH_SECRET": "a secret of thirty-two bytes or more", "PATH": "/usr/bin:/bin"}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that this is known to be complete too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel was installed, and nothing else.

    Its dependencies are those of the environment that runs the tests, found through a .pth file, so that no
    network is needed. The source tree is not among them: a .pth file in a folder so found is not read.
    """
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=environment)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def test_the_program_is_the_installed_one(programs: Path, tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    found = run(programs / "python", "-c", "import latchkey; print(latchkey.__file__)", cwd=tmp_path)

    assert Path(found).is_relative_to(programs.parent)


def test_it_migrates_and_serves_from_an_empty_folder(programs: Path, tmp_path: Path) -> None:
    """Ready means that the schema is at the head of the history that the wheel brought along."""
    folder, port = tmp_path / "empty", free_port()
    folder.mkdir()
    run(programs / "latchkey", "migrate", cwd=folder)
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    serve = ["env", *settings, str(programs / "latchkey"), "serve", "--port", str(port)]

    with supervised(serve, folder, tmp_path / "log", ready=f":{port}", signal="TERM", account=Account()):
        answer = httpx2.get(f"http://127.0.0.1:{port}/health/ready")

    assert answer.status_code == httpx2.codes.OK, answer.text
