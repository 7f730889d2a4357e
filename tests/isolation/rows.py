"""Reads all rows of a user directly from the database, bypassing the service."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg

from latchkey.infrastructure.database.schema import TABLE_NAMES

Rows = dict[str, list[str]]


async def rows_of(user_id: str, database_url: str) -> Rows:
    """Every row of every table that has this user id, as sorted text, by table name."""
    if database_url.startswith("sqlite"):
        return _sqlite_rows(user_id, database_url.partition(":///")[2])
    connection = await asyncpg.connect(database_url)
    try:
        return {
            name: _as_text(await connection.fetch(f"SELECT * FROM {name} WHERE user_id = $1", user_id))
            for name in TABLE_NAMES
        }
    finally:
        await connection.close()


def _sqlite_rows(user_id: str, path: str) -> Rows:
    connection = sqlite3.connect(path)
    try:
        return {
            name: _as_text(connection.execute(f"SELECT * FROM {name} WHERE user_id = ?", [user_id]).fetchall())
            for name in TABLE_NAMES
        }
    finally:
        connection.close()


def _as_text(rows: Sequence[Any]) -> list[str]:
    return sorted(repr(tuple(row)) for row in rows)
