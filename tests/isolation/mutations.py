"""Mutations of the service: each removes one or more safeguards from a process before it imports the repositories.

Two independent locks protect each row: the `user_id` filter in every statement, with the tenant guard that refuses a
statement without it; and row-level security on PostgreSQL. Removing one lock leaks nothing. Only a mutation that
removes both shows that the isolation tests can fail.
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
from latchkey.infrastructure.database import migrations
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.schema import TABLE_NAMES
from latchkey.infrastructure.database.sql import postgresql, session, tenant_guard
from latchkey.interfaces.auth import owner_of
from latchkey.interfaces.http import guards
from latchkey.interfaces.mcp.tools import ToolBinding
from tests.isolation.turn_mutations import TURN_MUTATIONS

Connection = Request[Any, Any, Any]


def without_filter() -> None:
    def any_user(_: Table) -> ColumnElement[bool]:
        return true()

    _replace(any_user, "owned_by_user", session)


def without_tenant_guard() -> None:
    _replace(lambda _: None, "check_statement", tenant_guard, session)


def without_guard_of_prepared_statements() -> None:
    _replace(lambda _: None, "check_statement", session)


def without_guard_of_engines() -> None:
    _replace(lambda _: None, "install_tenant_guard", tenant_guard)


def without_row_level_security() -> None:
    upgrade = migrations.upgrade

    def upgrade_and_disable(url: str, revision: str = "head", schema: AppSchema = NO_APP) -> None:
        upgrade(url, revision, schema)
        if url.startswith("postgresql"):
            asyncio.run(_disable_row_level_security(url))

    _replace(upgrade_and_disable, "upgrade", migrations)


def without_role() -> None:
    begin_sql = postgresql.begin_sql
    set_role = f"SET LOCAL ROLE {postgresql.RUNTIME_ROLE};"
    _replace(lambda *args: begin_sql(*args).replace(set_role, ""), "begin_sql", postgresql)


def without_grant_check() -> None:
    _replace(lambda *_: None, "check", Permission)


def with_all_tools_listed() -> None:
    _replace(lambda *_: True, "is_allowed", ToolBinding)


def without_path_check() -> None:
    """The credential alone selects the user; the user id in the path is ignored."""

    async def owner_of_credential(connection: Connection) -> Owner:
        return await owner_of(connection.headers.get("authorization"), connection.app.state.identity)

    _replace_path_check(owner_of_credential)


def with_trusted_path() -> None:
    """The user id in the path selects the user, for every valid credential."""

    async def owner_of_path(connection: Connection) -> Owner:
        return Owner(UserId(connection.path_params["user_id"]))

    _replace_path_check(owner_of_path)


def without_conversation_binding() -> None:
    _replace(lambda *_: True, "includes", Scope)


def without_tool_check() -> None:
    _replace(lambda *_: True, "may_run", Scope)


def without_cursor_tags() -> None:
    decode_cursor = Window.decode_cursor

    def decode_without_tag_check(window: Window, key: Any) -> Any:
        if window.cursor is None:
            return None
        values = json.loads(base64.urlsafe_b64decode(window.cursor + "=" * (-len(window.cursor) % 4)))
        text = json.dumps([key.__struct_config__.tag, *values[1:]])
        return decode_cursor(replace(window, cursor=base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")), key)

    _replace(decode_without_tag_check, "decode_cursor", Window)


def without_revocation() -> None:
    _replace_token_lookup(lambda tokens: tokens.c.expires_at > bindparam("now"))


def without_expiry() -> None:
    _replace_token_lookup(lambda tokens: tokens.c.revoked_at.is_(None))


MUTATIONS: dict[str, list[Callable[[], None]]] = {
    "none": [],
    "filter": [without_filter],
    "tenant guard": [without_tenant_guard],
    "tenant guard of prepared statements": [without_guard_of_prepared_statements],
    "tenant guard of engines": [without_guard_of_engines],
    "row-level security": [without_row_level_security],
    "role": [without_role],
    "filter and tenant guard": [without_filter, without_tenant_guard],
    "filter, tenant guard and row-level security": [without_filter, without_tenant_guard, without_row_level_security],
    "filter, tenant guard and role": [without_filter, without_tenant_guard, without_role],
    "grant check": [without_grant_check],
    "tools listed by grant": [with_all_tools_listed],
    "path check": [without_path_check],
    "path check, path trusted": [with_trusted_path],
    "conversation binding": [without_conversation_binding],
    "tools of a token": [without_tool_check],
    "cursor tags": [without_cursor_tags],
    "revocation": [without_revocation],
    "expiry": [without_expiry],
    **TURN_MUTATIONS,
}
"""The safeguards that each mutation removes, by the name of the mutation."""


async def _disable_row_level_security(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for table in TABLE_NAMES:
            await connection.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    finally:
        await connection.close()


def _replace(replacement: Any, name: str, *targets: Any) -> None:
    """Replace the attribute of that name in every target (module or class)."""
    for target in targets:
        setattr(target, name, replacement)


def _replace_path_check(owner: Callable[[Connection], Any]) -> None:
    authenticate = guards.authenticate

    async def check_nothing(connection: Connection) -> None:
        try:
            await authenticate(connection)
        except WrongUser:
            connection.scope["user"] = await owner(connection)

    _replace(check_nothing, "authenticate", guards)


def _replace_token_lookup(is_alive: Callable[[Any], Any]) -> None:
    """Import the module only now: another mutation may have replaced what its statements are built from."""
    tokens: Any = importlib.import_module("latchkey.infrastructure.database.repositories.context_tokens")
    conditions = (tokens.tokens.c.digest == bindparam("digest"), is_alive(tokens.tokens))
    tokens._BY_DIGEST = tokens._SELECT.where(*conditions)
    tokens._BY_DIGEST_FOR_SHARE = tokens._WITH_TURN.where(*conditions).with_for_update(read=True, of=tokens.tokens)
