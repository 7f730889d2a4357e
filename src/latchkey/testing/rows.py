"""Reads the rows of a user directly from the database, past the service and its isolation."""

import re
import sqlite3
from collections.abc import Iterable
from typing import Any

import asyncpg
from sqlalchemy import Table, select

from latchkey.infrastructure.database.migrations import connect, create_migration_engine

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Rows = dict[str, list[str]]


async def rows_of(user_id: str, database_url: str, names: Iterable[str]) -> Rows:
    """Return the rows of the named tables that have this user id, as sorted texts by the name of the table."""
    if database_url.startswith("sqlite"):
        return {name: _sqlite_rows(user_id, database_url.partition(":///")[2], name) for name in names}
    connection = await asyncpg.connect(database_url)
    try:
        statement = 'SELECT * FROM "{}" WHERE user_id = $1'
        return {name: _as_text(await connection.fetch(statement.format(name), user_id)) for name in names}
    finally:
        await connection.close()


async def ids_in(database_url: str, tables: Iterable[Table]) -> set[str]:
    """Return all UUIDs in these tables."""
    rows: list[Any] = []
    async with connect(create_migration_engine(database_url)) as connection:
        for table in tables:
            rows += (await connection.execute(select(table))).all()
    return {id for row in rows for value in row for id in UUID.findall(str(value))}


def _sqlite_rows(user_id: str, path: str, name: str) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return _as_text(connection.execute(f'SELECT * FROM "{name}" WHERE user_id = ?', [user_id]).fetchall())
    finally:
        connection.close()


def _as_text(rows: Iterable[Any]) -> list[str]:
    return sorted(repr(tuple(row)) for row in rows)
