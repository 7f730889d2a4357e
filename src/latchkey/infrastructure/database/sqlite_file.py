"""SQLite's files: their owner's alone."""

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL


def make_private(url: URL) -> None:
    """Make the file before SQLite does, which would let everybody on the machine read it.

    The files that SQLite puts beside it get its mode. What is there already stays as it is, and what cannot be
    made is told by whoever connects.
    """
    with suppress(OSError):
        os.close(os.open(str(url.database), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def files_of(url: URL) -> list[Path]:
    """Where they are, if they are there: SQLite removes its log and its index when nobody has the database open."""
    return [Path(f"{url.database}{suffix}") for suffix in ("", "-wal", "-shm")]
