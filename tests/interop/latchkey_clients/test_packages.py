"""The packages of the clients: their files, types and examples."""

import asyncio
import json
import os
import re
import subprocess
import sys
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.browser.backend import Backend
from tests.interop.check_counter import Checks
from tests.interop.latchkey_clients.calls import PYTHON, ROOT, TYPESCRIPT, copy_sources, run_npm


def test_generated_types_match_the_openapi_document(tmp_path: Path) -> None:
    """If not, run `make schemas`."""
    folder = copy_sources(tmp_path)
    run_npm(folder, "run", "generate")

    assert (TYPESCRIPT / "src/schema.ts").read_text() == (folder / "src/schema.ts").read_text()


def test_typescript_package_has_what_a_page_needs(package: Path) -> None:
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    dependencies = json.loads((package / "package.json").read_text())["dependencies"]

    assert files == {
        *("LICENSE", "README.md", "package.json", "dist/index.d.ts", "dist/index.js"),
        *("dist/schema.d.ts", "dist/schema.js"),
    }
    assert list(dependencies) == ["openapi-fetch"]


def test_example_of_the_typescript_client_compiles_in_strict_mode(tmp_path: Path) -> None:
    folder = copy_sources(tmp_path)
    (example,) = re.findall("```ts\n(.*?)```", (TYPESCRIPT / "README.md").read_text(), re.DOTALL)
    declared = "declare function show(text: string): void;\ndeclare function getToken(): Promise<string>;\n"
    (folder / "src/example.ts").write_text(declared + example.replace("@latchkey/client", "./index.js"))

    run_npm(folder, "run", "build")


@pytest.mark.asyncio(loop_scope="session")
async def test_example_of_the_python_client_runs(backend: Backend, tmp_path: Path, checks: Checks) -> None:
    await backend.reset()
    await backend.handlers["script_model"]([{"says": ["I will", "."]}, {"says": ["Milk."]}])
    (example,) = re.findall("```python\n(.*?)```", (PYTHON / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(example.replace("http://127.0.0.1:8000", backend.url))
    variables = {"TOKEN": backend.new_user()["token"], "PYTHONPATH": str(PYTHON / "src")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, tmp_path / "example.py", stdout=PIPE, env={**os.environ, **variables}
    )
    output, _ = await process.communicate()

    assert output.decode() == "I will.\nMilk.\nBuy milk 1\n404 not-found\n"
    checks.passed("Python client", 4)


def test_python_package_can_be_built(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(PYTHON)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("latchkey_client-*.whl")
    with zipfile.ZipFile(wheel) as built:
        files = {name: built.read(name).decode() for name in built.namelist()}
    (metadata,) = (text for name, text in files.items() if name.endswith("METADATA"))

    assert {"latchkey_client/__init__.py", "latchkey_client/py.typed"} < files.keys()
    assert re.findall("Requires-Dist: (.*)", metadata) == ["httpx2==2.*"]


@pytest.mark.parametrize("source", [TYPESCRIPT / "src/index.ts", PYTHON / "src/latchkey_client/__init__.py"])
def test_client_has_at_most_300_lines(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= 300


@pytest.mark.parametrize("folder", [TYPESCRIPT, PYTHON])
def test_client_has_the_license_of_the_service(folder: Path) -> None:
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
