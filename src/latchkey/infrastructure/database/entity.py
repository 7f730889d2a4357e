"""Tables of an app: entities, whose rows belong to users, and reference tables, which every user may read."""

from collections.abc import Iterator

from advanced_alchemy.base import convention
from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Uuid,
)
from sqlalchemy.schema import ColumnCollectionConstraint, SchemaItem

from latchkey.infrastructure.database.schema import TIME
from latchkey.infrastructure.database.schema import metadata as built_in
from latchkey.infrastructure.database.sql.tenant_guard import REFERENCE, is_reference_table
from latchkey.infrastructure.database.undo_rules import ROWS, UNDO

ENTITY = "entity"
"""The value of `Table.info["latchkey"]` of a table whose rows belong to users."""

APP_METADATA = MetaData(naming_convention=convention)
"""The tables of the app in this process, unless they name another collection."""


def entity_table(name: str, *items: SchemaItem, metadata: MetaData = APP_METADATA) -> Table:
    """Return a table whose rows belong to users.

    It has `user_id` and `id` (a UUIDv7) as its key, the given columns, constraints and indexes, then `version`,
    `created_at` and `updated_at`. Raises `ValueError` for a name of a built-in table, and for a key or an index that
    does not begin with `user_id`.
    """
    table = Table(
        name,
        metadata,
        Column("user_id", String(128), nullable=False),
        Column("id", Uuid(), nullable=False),
        *items,
        Column("version", Integer(), nullable=False),
        Column("created_at", TIME, nullable=False),
        Column("updated_at", TIME, nullable=False),
        PrimaryKeyConstraint("user_id", "id"),
        info={"latchkey": ENTITY, UNDO: ROWS},
    )
    check_entity_table(table)
    return table


def reference_table(name: str, *items: SchemaItem, metadata: MetaData = APP_METADATA) -> Table:
    """Return a table that belongs to no user, for example a catalogue. The items include its primary key.

    Every statement may read it. Migrations and operators write it; a unit of work cannot. Raises `ValueError` for a
    name of a built-in table, and for a column `user_id`.
    """
    table = Table(name, metadata, *items, info={"latchkey": REFERENCE})
    if "user_id" in table.c:
        raise ValueError(f"The reference table {name} has a column user_id: make it with `entity_table`.")
    _check_name(table)
    return table


def user_foreign_key(column: str, target: Table, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """Return a foreign key from `(user_id, column)` to `(user_id, id)` of another table of users.

    Without `user_id` in it, the key could reveal that another user has a row: databases check keys without policies.
    """
    return ForeignKeyConstraint(["user_id", column], [target.c.user_id, target.c.id], ondelete=ondelete)


def check_entity_table(table: Table) -> None:
    """Raises `ValueError` unless `user_id` comes first in the table and in each of its keys and indexes."""
    _check_name(table)
    for fault in _faults(table):
        raise ValueError(f"The table {table.name} does not isolate users: {fault}.")


def _check_name(table: Table) -> None:
    if table.name in built_in.tables:
        raise ValueError(f"Latchkey has a table {table.name} itself: choose another name.")


def _faults(table: Table) -> Iterator[str]:
    owner = table.c.get("user_id")
    if owner is None:
        yield "it has no column user_id: make it with `entity_table`, or derive its class from `Entity`"
        return
    if owner.nullable or not isinstance(owner.type, String):
        yield "its column user_id must be a text and NOT NULL"
    if table.schema is not None:
        yield "it must be in the default schema"
    for key in (*table.constraints, *table.indexes):
        if isinstance(key, ForeignKeyConstraint):
            if _is_fault(key):
                yield f"its foreign key on {', '.join(key.column_keys)} must begin with user_id: `user_foreign_key`"
        elif isinstance(key, ColumnCollectionConstraint | Index) and list(key.columns)[:1] != [owner]:
            kind = "index" if isinstance(key, Index) else "key"
            yield f"its {kind} {key.name or [column.name for column in key.columns]} must begin with user_id"


def _is_fault(key: ForeignKeyConstraint) -> bool:
    """A key to a reference table needs no user."""
    if key.column_keys[:1] == ["user_id"]:
        return False
    target = key.elements[0]
    tables = key.table.metadata.tables
    name = target.target_fullname.rpartition(".")[0]
    return not (name in tables and is_reference_table(tables[name]))
