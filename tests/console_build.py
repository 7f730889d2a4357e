"""Builds the files of the console from `console/`: `make console`."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.node import environment, installed, npm

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "console"
STATIC = ROOT / "src/latchkey/interfaces/http/static"


def build(folder: Path) -> None:
    """Check the types of the sources and build them into a folder, which is emptied before."""
    command = npm("run", "build", "--", "--outDir", str(folder), "--logLevel", "warn")
    subprocess.run(command, cwd=installed(SOURCES), env=environment(), check=True)


def main() -> None:
    with TemporaryDirectory() as folder:
        build(Path(folder))
        shutil.rmtree(STATIC, ignore_errors=True)
        shutil.copytree(folder, STATIC)


if __name__ == "__main__":
    main()
