"""Schema revisions, without importing Alembic, which would delay every start by 0.1 s."""

from functools import cache
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

import latchkey
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
    return max(path.name for path in (migrations_folder() / "versions").glob("[0-9]*.py")).partition("_")[0]


async def is_at_head(engine: AsyncEngine) -> bool:
    """Return whether the database has the newest revision. Raises the driver's error if it cannot be reached."""
    if _is_missing_file(engine.url):
        return False
    async with engine.connect() as connection:
        try:
            result = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return False
            raise
        return result.scalar() == head()


def _is_missing_file(url: URL) -> bool:
    return url.drivername == SQLITE and not Path(str(url.database)).exists()
