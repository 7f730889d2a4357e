"""The local signing key: a file that only its owner may read."""

import fcntl
import os
import secrets
from pathlib import Path
from stat import S_IRWXG, S_IRWXO
from typing import BinaryIO

from latchkey.domain.errors import Invalid

_KEY_BYTES = 32


def key_in(path: Path) -> bytes:
    """The key in this file, which is made if it is not there. Processes that start at once get the same one.

    Raises `Invalid` if others than the owner may read it, or it is too short to be a key.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        if os.fstat(descriptor).st_mode & (S_IRWXG | S_IRWXO):
            raise Invalid(f"The signing key {path} must be its owner's alone: `chmod 600 {path}`, or delete it.")
        # Held until the file is closed: whoever comes second waits, and then finds the key.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        key = file.read() or _written(file)
    if len(key) < _KEY_BYTES:
        raise Invalid(f"The signing key {path} must be at least {_KEY_BYTES} bytes: delete it, and a new one is made.")
    return key


def _written(file: BinaryIO) -> bytes:
    key = secrets.token_hex(_KEY_BYTES).encode()
    file.write(key)
    file.flush()
    os.fsync(file.fileno())
    return key
