"""The folders of the Claude CLI: one root for each running service, and in it one workspace for each turn."""

import fcntl
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from msgspec import Struct

_PREFIX = "latchkey-claude-"
_PRIVATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

_log = structlog.get_logger(__name__)


class Workspace(Struct, frozen=True):
    """The folder of one turn, with everything that the CLI may write to. The CLI starts in `work`, which is empty."""

    path: Path

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def mcp_config(self) -> Path:
        return self.path / "mcp.json"

    @property
    def system_prompt(self) -> Path:
        return self.path / "system-prompt.txt"

    def write(self, path: Path, content: bytes) -> None:
        """Create a file that no other user of the machine can read."""
        with os.fdopen(os.open(path, _PRIVATE_FILE, 0o600), "wb") as file:
            file.write(content)


class WorkspaceRoot:
    """The folder of one service, created with the first workspace.

    It is locked while the service runs, so that `remove_stale` of another service does not remove it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._path: Path | None = None
        self._lock: int | None = None

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A new workspace, which is removed afterwards."""
        if self._path is None:
            self._path, self._lock = _create_locked_folder(self._parent)
        workspace = Workspace(Path(tempfile.mkdtemp(dir=self._path)))
        try:
            for folder in (workspace.home, workspace.tmp, workspace.work):
                folder.mkdir(mode=0o700)
            yield workspace
        finally:
            _remove(workspace.path)

    def close(self) -> None:
        """Remove the folder and release its lock."""
        if self._path is not None and self._lock is not None:
            _remove(self._path)
            os.close(self._lock)
            self._path = self._lock = None


def remove_stale(parent: Path | None = None) -> None:
    """Remove the folders of services that no longer run, and kill the processes in them."""
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = _lock(path)
            try:
                _kill_processes_in(path)
                _remove(path)
            finally:
                os.close(lock)


def _create_locked_folder(parent: Path) -> tuple[Path, int]:
    """Tries again if `remove_stale` of another service has removed the folder before it was locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(OSError):
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)


def _lock(path: Path) -> int:
    """Raises `OSError` if another process has the lock, or if the path is not a private folder of this user."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
            raise PermissionError(f"{path} is not a private folder of this user.")
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise
    return folder


def _kill_processes_in(path: Path) -> None:
    """Needs `/proc`. On systems without it, a process ends when it next writes to its closed output."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(path.resolve()):
                os.kill(int(process.name), signal.SIGKILL)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        _log.warning("claude_workspace_not_removed", path=str(path), error=type(error).__name__)
