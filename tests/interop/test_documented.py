"""What docs/mcp-clients.md tells people to do connects them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from latchkey.infrastructure.agents.claude.cli import find_cli
from tests.e2e.service_process import LATCHKEY
from tests.interop.guests.driven import FASTMCP, FOLDER
from tests.interop.place import Place
from tests.interop.tally import Checks
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
    "python fastmcp": [str(FASTMCP), "-"],
}


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one that the page speaks of, in which npm programs were installed too."""
    folder = tmp_path_factory.mktemp("desk")
    for name, target in {".venv/bin/latchkey": LATCHKEY, "bin/claude": find_cli()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(str(target))
    (folder / "bin/npx").write_text('#!/bin/sh\nshift\nexec mcp-inspector "$@"\n')
    (folder / "bin/npx").chmod(0o755)
    (folder / "node_modules").symlink_to(installed(FOLDER) / "node_modules")
    return folder


@pytest.fixture(scope="session")
def surroundings(place: Place, desk: Path) -> dict[str, str]:
    """The environment after the page's first block, which is run as well; but the database is that of this service."""
    path = f"{desk / 'bin'}:{FOLDER / 'node_modules/.bin'}:{environment()['PATH']}"
    given = {**place.environment, "PATH": path, "HOME": str(desk), "DISABLE_AUTOUPDATER": "1"}
    _, text = block_in(INTRODUCTION, place)
    said = subprocess.run(
        ["/bin/sh", "-eu"], input=f"{text}env -0", cwd=desk, env=given, capture_output=True, text=True, check=True
    ).stdout
    exported = dict(line.split("=", 1) for line in said.split("\0") if line)
    assert exported["LATCHKEY_CONTEXT_TOKEN"].startswith("lk_"), exported
    return {**exported, "LATCHKEY_DATABASE_URL": place.environment["LATCHKEY_DATABASE_URL"]}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_an_example_comes_in_over_both_transports(
    section: str, place: Place, desk: Path, surroundings: dict[str, str], checks: Checks
) -> None:
    kind, text = block_in(section, place)
    done = subprocess.run(
        RUNNERS[kind],
        input=text,
        cwd=desk,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(INSIDE.get(kind, "list_tasks")) == 2, done.stdout
    checks.passed("examples of docs/mcp-clients.md", 2)


def block_in(section: str, place: Place) -> tuple[str, str]:
    """What kind of program it is, and the program, sent to this service."""
    block = BLOCK.search(section)
    assert block, section
    return block["kind"], block["text"].replace("http://127.0.0.1:8000", place.replica.url)
