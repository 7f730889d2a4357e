"""The service with a guard taken out: each of these makes a process such a service, before it imports the rest.

Two locks keep each row: the filter that every statement carries, with the guard that refuses one without, and
row-level security where there is PostgreSQL. With one lock gone nothing leaks yet, so that a mutant without both is
what shows that the proof of isolation can fail.
"""

import asyncio
import base64
import importlib
import json
from collections.abc import Callable
from typing import Any

import asyncpg
from litestar import Request
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Table, bindparam, true

from latchkey.application.access import Permission
from latchkey.domain.credentials import Owner, Scope, UserId
from latchkey.domain.errors import WrongUser
from latchkey.domain.page import Window
from latchkey.infrastructure.database import migrations as migration
from latchkey.infrastructure.database.schema import metadata
from latchkey.infrastructure.database.sql import session
from latchkey.infrastructure.database.sql import statements as prepared
from latchkey.infrastructure.database.sql import tenant_guard as guard
from latchkey.infrastructure.database.sql.dialects import RUNTIME_ROLE, PostgreSQL
from latchkey.interfaces.auth import owner_of
from latchkey.interfaces.http import requests as request
from latchkey.interfaces.mcp.tool_schema import ToolBinding

Connection = Request[Any, Any, Any]


def without_filter() -> None:
    def everybodys(_: Table) -> ColumnElement[bool]:
        return true()

    _put(everybodys, "owned_by_user", session)


def without_statement_guard() -> None:
    _put(lambda _: None, "check_statement", guard, prepared)


def without_guard_of_prepared() -> None:
    _put(lambda _: None, "check_statement", prepared)


def without_guard_of_engines() -> None:
    _put(lambda _: None, "install_tenant_guard", guard)


def without_row_security() -> None:
    upgrade = migration.upgrade

    def upgrade_and_unlock(url: str, revision: str = "head") -> None:
        upgrade(url, revision)
        if url.startswith("postgresql"):
            asyncio.run(_unlock(url))

    _put(upgrade_and_unlock, "upgrade", migration)


def without_role() -> None:
    opening = PostgreSQL.begin_sql
    switch = f"SET LOCAL ROLE {RUNTIME_ROLE};"
    _put(lambda *given: opening(*given).replace(switch, ""), "begin_sql", PostgreSQL)


def without_grant_check() -> None:
    _put(lambda *_: None, "check", Permission)


def with_all_tools_shown() -> None:
    _put(lambda *_: True, "is_allowed", ToolBinding)


def without_path_check() -> None:
    """The credential decides whose things are answered, wherever they were asked for."""

    async def credentials(connection: Connection) -> Owner:
        return await owner_of(connection.headers.get("authorization"), connection.app.state.identity)

    _open_paths(credentials)


def with_path_believed() -> None:
    """Whoever has signed in is whom the path names."""

    async def named(connection: Connection) -> Owner:
        return Owner(UserId(connection.path_params["user_id"]))

    _open_paths(named)


def without_conversation_binding() -> None:
    _put(lambda *_: True, "includes", Scope)


def without_cursor_tags() -> None:
    decode_cursor = Window.decode_cursor

    def whatever_it_lists(window: Window, key: Any) -> Any:
        if window.cursor is None:
            return None
        found = json.loads(base64.urlsafe_b64decode(window.cursor + "=" * (-len(window.cursor) % 4)))
        text = json.dumps([key.__struct_config__.tag, *found[1:]])
        return decode_cursor(replace(window, cursor=base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")), key)

    _put(whatever_it_lists, "decode_cursor", Window)


def without_revocation() -> None:
    _resolve_tokens(lambda tokens: tokens.c.expires_at > bindparam("now"))


def without_expiry() -> None:
    _resolve_tokens(lambda tokens: tokens.c.revoked_at.is_(None))


MUTANTS: dict[str, list[Callable[[], None]]] = {
    "none": [],
    "filter": [without_filter],
    "statement guard": [without_statement_guard],
    "statement guard of what repositories run": [without_guard_of_prepared],
    "statement guard of engines": [without_guard_of_engines],
    "row-level security": [without_row_security],
    "role": [without_role],
    "filter and statement guard": [without_filter, without_statement_guard],
    "filter, statement guard and row-level security": [without_filter, without_statement_guard, without_row_security],
    "filter, statement guard and role": [without_filter, without_statement_guard, without_role],
    "grant check": [without_grant_check],
    "tools shown by grant": [with_all_tools_shown],
    "path check": [without_path_check],
    "path check, the path believed": [with_path_believed],
    "conversation binding": [without_conversation_binding],
    "cursor tags": [without_cursor_tags],
    "revocation": [without_revocation],
    "expiry": [without_expiry],
}
"""What is gone, by name."""


async def _unlock(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for table in metadata.tables:
            await connection.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    finally:
        await connection.close()


def _put(something: Any, name: str, *places: Any) -> None:
    """In the place of what has that name."""
    for place in places:
        setattr(place, name, something)


def _open_paths(owner: Callable[[Connection], Any]) -> None:
    check_owner = request.check_owner

    async def open_to_all(connection: Connection) -> None:
        try:
            await check_owner(connection)
        except WrongUser:
            connection.scope["user"] = await owner(connection)

    _put(open_to_all, "check_owner", request)


def _resolve_tokens(is_alive: Callable[[Any], Any]) -> None:
    """Imported only now: what it is built of may be another mutant's."""
    tokens: Any = importlib.import_module("latchkey.infrastructure.database.repositories.context_tokens")
    found = (tokens.tokens.c.digest == bindparam("digest"), is_alive(tokens.tokens))
    tokens._BY_DIGEST = tokens._ALL.where(*found)
    tokens._HELD = tokens._WITH_TURN.where(*found).with_for_update(read=True, of=tokens.tokens)
