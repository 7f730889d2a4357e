"""The wheel works without the source tree."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest
from packaging.utils import canonicalize_name

from latchkey.testing.processes import Account, free_port, supervised
from tests.integration.mcp.jsonrpc import call
from tests.third_party import omitted_packages

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "LATCHKEY_AUTH_SECRET": "a secret of thirty-two bytes or more",
    "LATCHKEY_AGENT": "rehearsal",
    "LATCHKEY_CONSOLE": "true",
    "PATH": "/usr/bin:/bin",
}


BLOCK_OMITTED = """
import sys

class Omitted:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Omitted())
"""


def run(*command: str | Path, cwd: Path, stdin: str = "", **variables: str) -> str:
    environment = {**ENVIRONMENT, **variables}
    process = subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, check=False, capture_output=True, text=True
    )
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
    the source tree, because .pth files in a folder that is added this way are not read. The packages that `make run`
    does not install cannot be imported.
    """
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=environment)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(str(Path(httpx2.__file__).parents[1]))
    (packages / "sitecustomize.py").write_text(BLOCK_OMITTED.format(names=omitted_modules()))
    return python.parent


def omitted_modules() -> set[str]:
    """The modules of the packages that `make run` does not install."""
    omitted = set(omitted_packages())
    modules = packages_distributions().items()
    return {module for module, names in modules if omitted & {canonicalize_name(name) for name in names}}


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
    folder = tmp_path / "empty"
    folder.mkdir()
    run(programs / "latchkey", "migrate", cwd=folder)

    with served(programs, folder, tmp_path / "log") as client:
        response = client.get("/health/ready")
        page = client.get("/", headers={"accept": "text/html"})
        files = [client.get(path) for path in re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text)]

    assert response.status_code == httpx2.codes.OK, response.text
    assert [file.status_code for file in files] == [httpx2.codes.OK] * 3


def test_wheel_writes_and_migrates_the_revision_of_an_app(programs: Path, tmp_path: Path) -> None:
    """The template of revisions is in the wheel."""
    (tmp_path / "shop.py").write_text(
        "from sqlalchemy import Column, Text\n"
        "from latchkey import App, entity_table\n"
        'reservations = entity_table("reservations", Column("code", Text()))\n'
        'app = App(name="shop", entities=[reservations], migrations="migrations")\n'
    )
    command: list[str | Path] = [programs / "latchkey", "revision", "--app", "shop:app", "-m", "Reservations"]
    path = tmp_path / "migrations" / "0001_reservations.py"

    assert run(*command, cwd=tmp_path) == f"wrote {path}\n"
    assert "from revision none to 0001" in run(programs / "latchkey", "migrate", "--app", "shop:app", cwd=tmp_path)
    assert run(*command, cwd=tmp_path).startswith("nothing to do")


@contextmanager
def served(programs: Path, folder: Path, log: Path) -> Iterator[httpx2.Client]:
    port = free_port()
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    serve = ["env", *settings, str(programs / "latchkey"), "serve", "--port", str(port)]
    with (
        supervised(serve, folder, log, ready=f":{port}", signal="TERM", account=Account()),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


def test_commands_work_without_the_packages_that_make_run_does_not_install(programs: Path, tmp_path: Path) -> None:
    latchkey, folder = programs / "latchkey", tmp_path / "empty"
    folder.mkdir()
    run(latchkey, "migrate", cwd=folder)
    checked = run(latchkey, "doctor", cwd=folder)
    client: httpx2.Client
    with served(programs, folder, tmp_path / "log") as client:
        client.headers["authorization"] = f"Bearer {run(latchkey, 'token', 'ada', cwd=folder).strip()}"
        chat = client.post("/api/ada/chat", json={"message": '/add_task {"title": "Buy milk"}'})
        minted = client.post("/api/ada/context-tokens", json={"grants": ["tasks:read"]}).json()
        schema = client.get("/schema/openapi.json")
        request = json.dumps(call("current", "list_tasks", {}))
        listed = run(latchkey, "mcp", cwd=folder, stdin=f"{request}\n", LATCHKEY_CONTEXT_TOKEN=minted["token"])

    assert omitted_modules() >= {"faker", "pygments", "rich"}
    assert "FAIL" not in checked
    assert [made["name"] for made in chat.json()["tool_calls"]] == ["add_task"]
    assert schema.json()["paths"]
    assert "Buy milk" in listed
