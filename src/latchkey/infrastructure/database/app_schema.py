"""What an app adds to the database: its tables, and the folder of its migrations."""

from pathlib import Path

from msgspec import Struct
from sqlalchemy import Table


class AppSchema(Struct, frozen=True, eq=False):
    """The tables of an app. All of them are created by the migrations in its folder.

    - `entities`: tables of users, with `user_id` first in each key.
    - `reference_tables`: tables that every user may read, and only migrations and operators write.
    """

    entities: tuple[Table, ...] = ()
    reference_tables: tuple[Table, ...] = ()
    migrations: Path | None = None

    @property
    def table_names(self) -> list[str]:
        return [table.name for table in (*self.entities, *self.reference_tables)]


NO_APP = AppSchema()
"""The service without an app."""
