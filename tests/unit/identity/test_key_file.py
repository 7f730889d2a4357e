"""The local signing key: made once, for its owner alone."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from latchkey.domain.errors import Invalid
from latchkey.infrastructure.identity.signing_key_file import key_in

PRINT_KEY = """
import sys, pathlib
from latchkey.infrastructure.identity.signing_key_file import key_in
sys.addaudithook(lambda event, _: event == "fcntl.flock" and print("waiting", flush=True))
print(key_in(pathlib.Path(sys.argv[1])).decode())
"""


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "signing.key"
    key = key_in(path)
    assert len(key) >= 32
    assert key_in(path) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    """Whoever finds the file without a key in it waits for the process that is about to write one."""
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
def test_a_key_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key_in(path)
    path.chmod(mode)
    with pytest.raises(Invalid, match="chmod 600"):
        key_in(path)


def test_a_key_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key = key_in(path)
    path.write_bytes(key[:20])
    with pytest.raises(Invalid, match="at least 32 bytes") as refused:
        key_in(path)
    assert key[:20].decode() not in refused.value.detail


def test_a_link_to_somewhere_else_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "signing.key"
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        key_in(path)
    assert not target.exists()
