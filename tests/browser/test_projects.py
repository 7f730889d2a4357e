"""A front-end developer's new Vite project with twenty lines of code, as the README and the guides show them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latchkey.testing.processes import Account, free_port, supervised
from tests.browser.backend import Backend
from tests.browser.browser_driver import FOLDER, BrowserDriver
from tests.node import environment, installed, node, npm

PROJECTS = FOLDER / "projects"
APPROVALS = {
    "ai_sdk": "asks_and_survives_reload_and_kill",
    "copilotkit": "asks_in_copilotkit",
    "openai": "asks_in_openai",
}
NAMES = sorted(path.parent.name for path in PROJECTS.glob("*/package.json"))


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", NAMES)
async def test_new_project_streams_and_survives_reload_and_kill(
    name: str, driver: BrowserDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.reset()
    user = backend.new_user()
    project = new_project(name, tmp_path)
    (project / ".env.local").write_text(f"VITE_LATCHKEY={backend.url}/api/{user['id']}\nVITE_TOKEN={user['token']}\n")
    build(project)
    with preview(project, tmp_path / "vite.log") as url:
        parameters = {"user": user, "url": backend.url, "project": name, "projectUrl": url}
        await driver.run("projects/chat", "streams_and_survives_reload_and_kill", parameters, backend.handlers)
        if name in APPROVALS:
            await backend.reset()
            await driver.run("projects/approvals", APPROVALS[name], parameters, backend.handlers)


def new_project(name: str, parent: Path) -> Path:
    """A copy of the project in a new folder, with its packages."""
    packages = installed(PROJECTS / name) / "node_modules"
    folder = parent / "project"
    shutil.copytree(PROJECTS / name, folder, ignore=shutil.ignore_patterns("node_modules", ".installing"))
    (folder / "node_modules").symlink_to(packages)
    return folder


def build(project: Path) -> None:
    """Compile the project in strict mode, and bundle it."""
    done = subprocess.run(
        npm("run", "build"), cwd=project, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def preview(project: Path, log: Path) -> Iterator[str]:
    """Serve the built project and yield the address of the page. The folder of the project is deleted on exit."""
    port = free_port()
    command = [str(node()), "node_modules/vite/bin/vite.js", "preview", "--port", str(port), "--strictPort"]
    with supervised(command, project, log, ready="Local", signal="TERM", account=Account()):
        yield f"http://localhost:{port}/"
