"""Where the Claude CLI lives while it works: a folder of the service's, and in it one for each turn."""

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
    """The folder of one turn: all that the CLI may write to. It starts in `work`, where there is nothing."""

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
        """A file that nobody else may read."""
        with os.fdopen(os.open(path, _PRIVATE_FILE, 0o600), "wb") as file:
            file.write(content)


class WorkspaceRoot:
    """The homes of one service. It is locked while the service lives, which tells the next one what is in use."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._path: Path | None = None
        self._lock: int | None = None

    @contextmanager
    def home(self) -> Iterator[Workspace]:
        """A home that is gone afterwards."""
        if self._path is None:
            self._path, self._lock = _locked_folder(self._parent)
        home = Workspace(Path(tempfile.mkdtemp(dir=self._path)))
        try:
            for room in (home.home, home.tmp, home.work):
                room.mkdir(mode=0o700)
            yield home
        finally:
            _remove(home.path)

    def close(self) -> None:
        if self._path is not None and self._lock is not None:
            _remove(self._path)
            os.close(self._lock)
            self._path = self._lock = None


def remove_stale(parent: Path | None = None) -> None:
    """End and remove what services that are no more have left. What belongs to one that lives stays."""
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = _lock(path)
            try:
                _end_processes_in(path)
                _remove(path)
            finally:
                os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and the lock on it. One that a sweep took before it was locked is given up."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(OSError):
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)


def _lock(path: Path) -> int:
    """Raises `OSError` if somebody else holds the lock, or if it is no folder of ours."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
            raise PermissionError(f"{path} is not a private folder of this user.")
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise
    return folder


def _end_processes_in(path: Path) -> None:
    """Whatever works in that folder. A system without `/proc` cannot tell: there they end when they next write."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(path.resolve()):
                os.kill(int(process.name), signal.SIGKILL)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        _log.warning("claude_home_not_removed", path=str(path), error=type(error).__name__)
