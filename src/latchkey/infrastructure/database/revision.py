"""Schema revisions, without importing Alembic, which would delay every start by 0.1 s."""

import sqlite3
from functools import cache
from pathlib import Path

from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

import latchkey
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.urls import SQLITE


@cache
def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the top of the repository."""
    package = Path(latchkey.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent.parent / "migrations"


@cache
def head() -> str:
    """Return the newest revision: the number at the beginning of the last file's name."""
    return max(_revisions())


@cache
def _revisions() -> frozenset[str]:
    """Return all revisions: the numbers at the beginning of the files' names."""
    return frozenset(path.name.partition("_")[0] for path in (migrations_folder() / "versions").glob("[0-9]*.py"))


async def is_at_head(engine: AsyncEngine) -> bool:
    """Return whether the database has the newest revision. Raises the driver's error if it cannot be reached."""
    return await read_revision(engine) == head()


async def read_revision(engine: AsyncEngine) -> str | None:
    """Return the revision of the database, None for one without. Raises the driver's error if it cannot be read."""
    if engine.url.drivername == SQLITE and not _is_sqlite_file(Path(str(engine.url.database))):
        return None
    async with engine.connect() as connection:
        try:
            result = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return None
            raise
        revision: str | None = result.scalar()
        return revision


def require_known(revision: str | None) -> None:
    """Raises `Unavailable` if this release has no such revision: the database belongs to a newer release."""
    if revision is not None and revision not in _revisions():
        raise Unavailable(
            f"The database has schema revision {revision} of a newer release, and this release knows revisions up to"
            f" {head()}: start the newer release, or restore a backup of this one."
        )


def _is_sqlite_file(path: Path) -> bool:
    """Return whether the file exists. Raises `sqlite3.Error` if it cannot be opened.

    aiosqlite would leave a thread behind that can print a traceback.
    """
    if path.exists():
        sqlite3.connect(path).close()
        return True
    return False
