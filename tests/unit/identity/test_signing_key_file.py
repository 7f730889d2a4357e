"""The signing key file of `serve --dev`: created once, accessible to its owner only."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from latchkey.domain.errors import Invalid, NotFound
from latchkey.infrastructure.identity.shared_secret import load_signing_key

PRINT_KEY = """
import sys, pathlib
from latchkey.infrastructure.identity.shared_secret import load_signing_key
sys.addaudithook(lambda event, _: event == "fcntl.flock" and print("waiting", flush=True))
print(load_signing_key(pathlib.Path(sys.argv[1]), create=True).decode())
"""


def test_signing_key_file_is_created_once_with_mode_600(tmp_path: Path) -> None:
    path = tmp_path / "var" / "signing.key"
    key = load_signing_key(path, create=True)
    assert len(key) >= 32
    assert load_signing_key(path, create=True) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_signing_key_file_concurrent_processes_read_the_same_key(tmp_path: Path) -> None:
    """A process that finds an empty file waits for the process that holds the lock."""
    path = tmp_path / "signing.key"
    path.touch(mode=0o600)
    with path.open("r+b") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        command = [sys.executable, "-c", PRINT_KEY, str(path)]
        second = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert second.stdout is not None
        assert second.stdout.readline() == b"waiting\n"
        first.write(b"k" * 64)
    assert second.communicate(timeout=30)[0].strip() == b"k" * 64


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620])
def test_signing_key_file_accessible_to_other_accounts_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    load_signing_key(path, create=True)
    path.chmod(mode)
    with pytest.raises(Invalid, match="chmod 600"):
        load_signing_key(path, create=True)


def test_signing_key_file_that_is_truncated_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key = load_signing_key(path, create=True)
    path.write_bytes(key[:20])
    with pytest.raises(Invalid, match="at least 32 bytes") as refused:
        load_signing_key(path, create=True)
    assert key[:20].decode() not in refused.value.detail


def test_signing_key_file_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "signing.key"
    path.symlink_to(target)
    with pytest.raises(Invalid, match="symbolic links"):
        load_signing_key(path, create=True)
    assert not target.exists()


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_signing_key_file_is_not_created_by_a_reader(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "var" / "signing.key"
    if content is not None:
        path.parent.mkdir()
        path.touch(mode=0o600)
    with pytest.raises(NotFound):
        load_signing_key(path, create=False)
    assert (path.read_bytes() if path.exists() else None) == content
    assert path.parent.exists() == (content is not None)


def test_signing_key_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    for create in (True, False):
        with pytest.raises(Invalid, match=r"signing\.key cannot be opened"):
            load_signing_key(tmp_path / "var" / "signing.key", create=create)
