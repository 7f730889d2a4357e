"""Schema revisions, without importing Alembic, which would delay every start by 0.1 s."""

import sqlite3
from functools import cache
from pathlib import Path

from msgspec import Struct
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

import latchkey
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.urls import SQLITE

NOT_MIGRATED = "The database schema is not up to date: run `latchkey migrate`, or `latchkey serve --migrate`."


@cache
def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the top of the repository."""
    package = Path(latchkey.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent.parent / "migrations"


@cache
def head() -> str:
    """Return the newest revision: the number at the beginning of the last file's name."""
    return max(path.name for path in (migrations_folder() / "versions").glob("[0-9]*.py")).partition("_")[0]


class SchemaVersion(Struct, frozen=True):
    """The revision of a database, and the oldest release that can use it, by that release's newest revision.

    Both are None for a database without a schema; the second one also if an early release has migrated the database.
    """

    revision: str | None = None
    compatible_with: str | None = None

    @property
    def is_newer(self) -> bool:
        """Whether a newer release has migrated the database."""
        return self.revision is not None and self.revision > head()

    def check_usable(self) -> None:
        """Raises `Unavailable`, with the remedy, if this release cannot use the database without a migration."""
        self.check_not_too_new()
        if self.revision is None or self.revision < head():
            raise Unavailable(NOT_MIGRATED)

    def check_not_too_new(self) -> None:
        """Raises `Unavailable` if a newer release has changed the schema so that this one cannot use it."""
        if self.is_newer and (self.compatible_with is None or self.compatible_with > head()):
            raise Unavailable(
                f"The database has schema revision {self.revision} of a newer release, and this release supports"
                f" revisions up to {head()}: start the newer release, or restore a backup of this one."
            )


async def read_schema_version(engine: AsyncEngine) -> SchemaVersion:
    """Read the version with one query. Raises the driver's error if it cannot be read."""
    if engine.url.drivername == SQLITE and not _is_sqlite_file(Path(str(engine.url.database))):
        return SchemaVersion()
    async with engine.connect() as connection:
        try:
            result = await connection.exec_driver_sql("SELECT * FROM alembic_version")
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return SchemaVersion()
            raise
        row = dict(result.mappings().first() or {})
        # A release before `compatible_with` has made a table without this column.
        return SchemaVersion(row.get("version_num"), row.get("compatible_with"))


def _is_sqlite_file(path: Path) -> bool:
    """Return whether the file exists. Raises `sqlite3.Error` if it cannot be opened.

    aiosqlite would leave a thread behind that can print a traceback.
    """
    if path.exists():
        sqlite3.connect(path).close()
        return True
    return False
