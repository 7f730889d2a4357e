"""The examples in docs/mcp-clients.md connect to the service."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from latchkey.infrastructure.agents.claude.cli import find_cli
from tests.e2e.service_process import LATCHKEY
from tests.interop.check_counter import Checks
from tests.interop.clients.subprocess_client import FOLDER, INTEROP_PYTHON
from tests.interop.service import InteropService
from tests.node import environment, installed, node

PAGE = (FOLDER.parents[1] / "docs/mcp-clients.md").read_text()
BLOCK = re.compile(r"^```(?P<kind>[\w ]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INTRODUCTION, *SECTIONS = PAGE.split("\n## ")
INSIDE = {"sh claude": "✔ Connected", "sh inspector": '"name": "list_tasks"'}
RUNNERS = {
    "sh claude": ["/bin/sh", "-eu"],
    "sh inspector": ["/bin/sh", "-eu"],
    "js": [str(node()), "--input-type=module", "-"],
    "python": [sys.executable, "-"],
    "python fastmcp": [str(INTEROP_PYTHON), "-"],
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page describes it, with the npm programs installed."""
    folder = tmp_path_factory.mktemp("documentation")
    for name, target in {".venv/bin/latchkey": LATCHKEY, "bin/claude": find_cli()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(str(target))
    (folder / "bin/npx").write_text('#!/bin/sh\nshift\nexec mcp-inspector "$@"\n')
    (folder / "bin/npx").chmod(0o755)
    (folder / "node_modules").symlink_to(installed(FOLDER) / "node_modules")
    return folder


@pytest.fixture(scope="session")
def shell_environment(service: InteropService, folder: Path) -> dict[str, str]:
    """The environment after the first block of the page was run, with the database of this service."""
    path = f"{folder / 'bin'}:{FOLDER / 'node_modules/.bin'}:{environment()['PATH']}"
    options = {**service.environment, "PATH": path, "HOME": str(folder), "DISABLE_AUTOUPDATER": "1"}
    _, text = block_in(INTRODUCTION, service)
    output = subprocess.run(
        ["/bin/sh", "-eu"], input=f"{text}env -0", cwd=folder, env=options, capture_output=True, text=True, check=True
    ).stdout
    exported = dict(line.split("=", 1) for line in output.split("\0") if line)
    assert exported["LATCHKEY_CONTEXT_TOKEN"].startswith("lk_"), exported
    return {**exported, "LATCHKEY_DATABASE_URL": service.environment["LATCHKEY_DATABASE_URL"]}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_documentation_example_connects_over_both_transports(
    section: str, service: InteropService, folder: Path, shell_environment: dict[str, str], checks: Checks
) -> None:
    kind, text = block_in(section, service)
    done = subprocess.run(
        RUNNERS[kind],
        input=text,
        cwd=folder,
        env=shell_environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(INSIDE.get(kind, "list_tasks")) == 2, done.stdout
    checks.passed("examples of docs/mcp-clients.md", 2)


def block_in(section: str, service: InteropService) -> tuple[str, str]:
    """The language of the block, and its text with the URL of this service."""
    block = BLOCK.search(section)
    assert block, section
    return block["kind"], block["text"].replace("http://127.0.0.1:8000", service.replica.url)
