"""The Claude CLI as it is installed: where it is found, which version it is, and how it is configured."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

TESTED_VERSION = "2.1.327"
"""The version whose behaviour the tests have seen. Much of what is relied on is documented nowhere."""

_PATIENCE_S = 20


class ClaudeCli(Struct, frozen=True, kw_only=True):
    """The binary, and the model that it is to ask. Without a `base_url` that is Anthropic's own."""

    path: Path
    api_key: str
    model: str = "sonnet"
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"ClaudeCli(path={str(self.path)!r}, model={self.model!r})"


def find_cli(configured: Path | None = None) -> Path | None:
    """The configured binary and no other; else the one that the `claude` extra brings; else the one on the PATH."""
    if configured is not None:
        return configured if _is_program(configured) else None
    bundled = _bundled()
    if bundled is not None:
        return bundled
    on_path = shutil.which("claude")
    return Path(on_path) if on_path else None


def version_of(cli: Path) -> str | None:
    """What the binary says of itself, such as `2.1.327`; None if it says nothing of the kind."""
    try:
        said = subprocess.run(  # noqa: S603 - the operator's own choice of program
            [cli, "--version"],
            env={"PATH": os.defpath, "DISABLE_AUTOUPDATER": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(rb"\d+\.\d+\.\d+", said)
    return found[0].decode() if found else None


def _bundled() -> Path | None:
    """The package is only a box for the binary: it is looked for, not imported."""
    package = find_spec("claude_agent_sdk")
    folders = (package.submodule_search_locations or []) if package else []
    binaries = (Path(folder) / "_bundled" / "claude" for folder in folders)
    return next(filter(_is_program, binaries), None)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
