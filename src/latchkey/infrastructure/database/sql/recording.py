"""Runs the writes of a turn's tool calls, and records the rows that they change as they were before.

- An INSERT that may find a conflicting row returns whether it has inserted one.
- A DELETE returns the deleted rows.
- An UPDATE returns the rows before and after. On PostgreSQL this is one statement, which joins the table with its own
  locked rows. SQLite returns only new rows: there the old ones are read first, which takes one more statement.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec
from advanced_alchemy.types import DateTimeUTC
from msgspec import Struct
from sqlalchemy import (
    JSON,
    Column,
    Delete,
    ForeignKey,
    Insert,
    Select,
    Table,
    TypeDecorator,
    Update,
    literal,
    select,
)

from latchkey.domain.undo import Change, Effect
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, Values, owned_by_user, returned_columns

_CHANGING = {"CASCADE", "SET NULL", "SET DEFAULT"}


class _Recorded(Struct, frozen=True, eq=False):
    """The statements in place of a write.

    - `before`: reads the rows before the write; None if the write returns them, or if there are none.
    - `write`: returns its own columns first.
    - `dependents`: each returns a row if the deletion would change rows of another table.
    """

    write: Insert | Update | Delete
    before: Select[*tuple[Any, ...]] | None
    dependents: Sequence[Select[*tuple[Any, ...]]]


async def record_write(
    entities: tuple[Table, ...], session: Session, statement: Insert | Update | Delete, values: Values
) -> tuple[list[Row], int]:
    """Run a write and record the rows that it changes. Returns its own rows, and how many it has changed."""
    table, own = statement.table, len(returned_columns(statement))
    assert isinstance(table, Table)  # noqa: S101 # others are not recorded
    is_joining = session.dialect.name == "postgresql"
    recorded = _recorded(statement, entities, is_joining=is_joining)
    for dependent in recorded.dependents:
        if await session.run(dependent, values):
            session.add_change(Change.not_recorded(str(table.name)))
    before = [] if recorded.before is None else await session.run(recorded.before, values)
    rows = await session.run(recorded.write, values)
    for change in _changes(table, statement, before, [row[own:] for row in rows]):
        session.add_change(change)
    return [row[:own] for row in rows], len(rows)


@cache
def _recorded(statement: Insert | Update | Delete, entities: tuple[Table, ...], *, is_joining: bool) -> _Recorded:
    table: Any = statement.table
    if isinstance(statement, Insert):
        return _Recorded(statement.returning(table.c.id, table.c.version), None, [])
    if isinstance(statement, Delete):
        ids = select(table.c.id).where(statement.whereclause)  # type: ignore[arg-type] # the tenant guard requires one
        dependents = [
            select(literal(1)).where(owned_by_user(other), column.in_(ids)).limit(1)
            for other, column in dependents_of(table, entities)
        ]
        return _Recorded(statement.returning(*_labelled(table.c, "before")), None, dependents)
    condition: Any = statement.whereclause
    rows = select(*table.c).where(condition)
    if rows.get_final_froms() != [table]:
        return _Recorded(statement.returning(*_labelled(table.c, "after")), None, [])
    after = _labelled(table.c, "after")
    if not is_joining:
        return _Recorded(statement.returning(*after), rows, [])
    before = rows.with_for_update(key_share=True).subquery("before")
    joined = statement.where(table.c.id == before.c.id)
    return _Recorded(joined.returning(*_labelled(before.c, "before"), *after), None, [])


def _labelled(columns: Iterable[Any], prefix: str) -> list[Any]:
    return [column.label(f"{prefix}_{column.name}") for column in columns]


def dependents_of(table: Table, entities: Iterable[Table] = ()) -> Iterator[tuple[Table, Column[Any]]]:
    """Yield the columns of other tables by which rows of them change when rows of this table are deleted."""
    for other, key in references_to(table, entities):
        if (key.ondelete or "").upper() in _CHANGING:
            yield other, key.parent


def references_to(table: Table, entities: Iterable[Table]) -> Iterator[tuple[Table, ForeignKey]]:
    """Yield the foreign keys of all tables that refer to the id of a row of this table."""
    for other in {*table.metadata.tables.values(), *entities}:
        yield from ((other, key) for key in other.foreign_keys if key.column is table.c.id)


def _changes(table: Table, statement: Insert | Update | Delete, before: list[Row], rows: list[Row]) -> Iterator[Change]:
    names, width = [str(column.name) for column in table.c], len(table.c)
    if isinstance(statement, Insert):
        for id, version in rows:
            yield Change("created", str(table.name), id, version)
    elif isinstance(statement, Delete):
        for row in rows:
            yield deletion(table, dict(zip(names, row, strict=True)))
    else:
        old_rows = {row[names.index("id")]: row for row in before}
        for row in rows:
            after = dict(zip(names, row[-width:], strict=True))
            old = row[:width] if len(row) > width else old_rows.get(after["id"])
            if old is None:
                yield Change.not_recorded(str(table.name))
            else:
                stored = dict(zip(names, old, strict=True))
                if changed := {name: value for name, value in stored.items() if value != after[name]}:
                    changed["version"] = stored["version"]
                    yield update_of(table, after["id"], after["version"], changed)


def deletion(table: Table, row: dict[str, Any]) -> Change:
    """Return the change that has deleted this row."""
    return _change("deleted", table, row["id"], row["version"], row)


def update_of(table: Table, id: Any, version: int, before: dict[str, Any]) -> Change:
    """Return the change of a row to this version. `before` has the version before, and what was changed."""
    return _change("updated", table, id, version, before)


def _change(effect: Effect, table: Table, id: Any, version: int, before: dict[str, Any]) -> Change:
    """Return the change, with the values as JSON; without an id if one of them cannot be restored from JSON."""
    stored = {name: _to_json(table.c[name], value) for name, value in before.items() if name != "user_id"}
    if any(value is _NOT_PORTABLE for value in stored.values()):
        return Change.not_recorded(str(table.name))
    return Change(effect, str(table.name), id, version, stored)


_NOT_PORTABLE = object()


def _to_json(column: Column[Any], value: Any) -> Any:
    """Return the value as JSON has it; `_NOT_PORTABLE` if it would be another value when it is read again."""
    column_type = column.type
    if isinstance(column_type, TypeDecorator) and not isinstance(column_type, DateTimeUTC):
        # It may encrypt its values, for example: they must not be stored in plain text.
        return _NOT_PORTABLE
    try:
        stored = msgspec.to_builtins(value)
        return stored if from_json(column, stored) == value else _NOT_PORTABLE
    except (TypeError, ValueError, NotImplementedError):
        return _NOT_PORTABLE


def from_json(column: Column[Any], stored: Any) -> Any:
    """Return the value of a column that was stored as JSON. Raises `ValueError` if the column cannot have it."""
    column_type = column.type
    if stored is None or isinstance(column_type, JSON):
        return stored
    if isinstance(column_type, TypeDecorator):
        column_type = column_type.impl_instance
    return msgspec.convert(stored, column_type.python_type, strict=False)
