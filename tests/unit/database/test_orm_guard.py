"""The ORM's guard writes the user into what the ORM compiles."""

import ast
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Insert, Integer, MetaData, String, Text, insert, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import create_async_engine

from latchkey.infrastructure.database.entity import reference_table
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql import orm_guard
from latchkey.infrastructure.database.sql.orm_guard import orm_engine
from latchkey.infrastructure.database.sql.tenant_guard import UnscopedStatement

DIALECTS = {url: create_async_engine(url).dialect for url in ("postgresql+asyncpg://", "sqlite+aiosqlite://")}
SQLITE = DIALECTS["sqlite+aiosqlite://"]
bicycles = reference_table("bicycles", Column("id", Integer()), Column("name", Text()), metadata=MetaData())
other = tasks.alias("other")


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_reads_of_a_users_table_are_compiled_as_rows_of_the_user(dialect: Dialect) -> None:
    compiled = select(tasks.c.id, other.c.id).join(other, other.c.id == tasks.c.id).compile(orm_engine(dialect))

    user = "$1::VARCHAR" if dialect.name == "postgresql" else "?"
    rows = f"(SELECT * FROM tasks WHERE user_id = {user})"
    assert f"FROM {rows} AS tasks JOIN {rows} AS other ON other.id = tasks.id" in str(compiled).replace("\n", "")


def test_reference_table_is_compiled_as_it_is() -> None:
    assert "FROM bicycles" in str(select(bicycles.c.id).compile(orm_engine(SQLITE)))


def test_table_of_no_user_is_refused() -> None:
    unknown = Column("id", String()), MetaData()
    table = reference_table("anything", unknown[0], metadata=unknown[1])
    table.info.clear()
    with pytest.raises(UnscopedStatement, match="anything has no user_id and is no reference table"):
        select(table.c.id).compile(orm_engine(SQLITE))


def test_engine_of_the_orm_opens_no_connection() -> None:
    with pytest.raises(AssertionError, match="only the connections of units of work"):
        orm_engine(SQLITE).connect()


def test_private_names_of_sqlalchemy_exist() -> None:
    owners: dict[str, list[Any]] = {
        "_values": [insert(tasks).values(title="x"), update(tasks).values(title="x")],
        "_multi_values": [insert(tasks), update(tasks)],
        "_post_values_clause": [insert(tasks)],
    }
    tree = ast.parse(Path(orm_guard.__file__).read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert {name for name in attributes if name.startswith("_") and not name.startswith("__")} == owners.keys()
    assert all(hasattr(owner, name) for name, objects in owners.items() for owner in objects)


def test_methods_of_the_compiler_that_the_guard_replaces_exist() -> None:
    """A method that a release of SQLAlchemy renames would no longer be replaced."""
    replaced = {name for name in vars(orm_guard._Pinning) if name.startswith(("visit_", "get_", "format_"))}

    assert len(replaced) == 10
    assert all(hasattr(SQLITE.statement_compiler, name) for name in replaced)
    assert Insert.__visit_name__ == "insert"
