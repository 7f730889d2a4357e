"""The wheel works without the source tree."""

import subprocess
import sys
import sysconfig
import tomllib
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest

from tests.process_supervision import Account, free_port, supervised

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"LATCHKEY_AUTH_SECRET": "a secret of thirty-two bytes or more", "PATH": "/usr/bin:/bin"}


def run(*command: str | Path, cwd: Path) -> str:
    process = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the source distribution, so that this is tested too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment and return the folder of its programs.

    A .pth file adds the dependencies from the environment of the tests, so that no network is needed. It does not add
    the source tree, because .pth files in a folder that is added this way are not read.
    """
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=environment)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def test_wheel_metadata_have_name_license_and_page(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{folder}/METADATA"))
        license = archive.read(f"{folder}/licenses/LICENSE")

    assert wheel.name.startswith("latchkey_server-")
    assert (metadata["Name"], metadata["License-Expression"]) == ("latchkey-server", "Apache-2.0")
    assert metadata.get_all("License-File") == ["LICENSE", "THIRD-PARTY.md"]
    assert license == (ROOT / "LICENSE").read_bytes()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "docs/package.md").read_text().strip()
    assert metadata["Keywords"]
    assert "Framework :: Litestar" in metadata.get_all("Classifier", [])


def test_wheel_program_prints_the_version_of_the_distribution(programs: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert run(programs / "latchkey", "--version", cwd=tmp_path).split()[-1] == project["version"]


def test_wheel_program_is_the_installed_one(programs: Path, tmp_path: Path) -> None:
    """Otherwise the next test would prove nothing."""
    path = run(programs / "python", "-c", "import latchkey; print(latchkey.__file__)", cwd=tmp_path)

    assert Path(path).is_relative_to(programs.parent)


def test_wheel_migrates_and_serves_from_an_empty_folder(programs: Path, tmp_path: Path) -> None:
    """Ready means that the database has the newest schema of the migrations in the wheel."""
    folder, port = tmp_path / "empty", free_port()
    folder.mkdir()
    run(programs / "latchkey", "migrate", cwd=folder)
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    serve = ["env", *settings, str(programs / "latchkey"), "serve", "--port", str(port)]

    with supervised(serve, folder, tmp_path / "log", ready=f":{port}", signal="TERM", account=Account()):
        response = httpx2.get(f"http://127.0.0.1:{port}/health/ready")

    assert response.status_code == httpx2.codes.OK, response.text
