"""Plans of SQLite for the queries of front ends: none reads all messages or turns of a user."""

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from uuid_utils.compat import uuid7

from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork

ID = uuid7()
CONVERSATION, TURN = ConversationId(ID), TurnId(ID)
QUERIES: dict[str, Callable[[UnitOfWork], Awaitable[object]]] = {
    "conversations": lambda uow: uow.conversations.page(Window(50, None)),
    "conversation": lambda uow: uow.conversations.get(CONVERSATION),
    "conversation_by_name": lambda uow: uow.conversations.find_id("chat-7"),
    "newest_turns": lambda uow: uow.turns.page_with_messages("chat-7", 50),
    "turns_before": lambda uow: uow.turns.page_with_messages("chat-7", 50, before=TURN),
    "turns_after": lambda uow: uow.turns.page_with_messages("chat-7", 50, after=TURN),
    "turn": lambda uow: uow.turns.get_with_message(TURN),
    "turn_by_message": lambda uow: uow.turns.find_by_message(CONVERSATION, "m1"),
    "turn_by_run": lambda uow: uow.turns.find_by_run_id("run-7"),
    "events": lambda uow: uow.turn_events.list_of_turns([TURN], 1000),
    "replacement": lambda uow: uow.messages.replace(CONVERSATION, TURN, TurnId(uuid7())),
    "history": lambda uow: uow.messages.history(CONVERSATION, 10, 1000),
}
_WHOLE_TABLE = re.compile(r"SCAN (conversations|turns|turn_events|messages)\b")
_ALL_OF_USER = re.compile(r"SEARCH (turns|turn_events|messages) .*\(user_id=\?\)")


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that SQLite has executed."""
    executed: list[str] = []
    with mock.patch("sqlite3.connect", partial(_connect_traced, sqlite3.connect, executed)):
        yield executed


def _connect_traced(
    connect: Callable[..., sqlite3.Connection], statements: list[str], *args: Any, **options: Any
) -> sqlite3.Connection:
    connection = connect(*args, **options)
    connection.set_trace_callback(statements.append)
    return connection


@pytest.mark.parametrize("name", QUERIES)
async def test_query_reads_no_whole_table_and_not_all_turns_of_a_user(
    name: str, sqlite_url: str, sqlite_path: Path, statements: list[str]
) -> None:
    engine = create_engine(sqlite_url)
    async with SqlUnitsOfWork(engine).open(Owner(UserId("ada")), "write") as uow:
        statements.clear()
        with suppress(NotFound):
            await QUERIES[name](uow)
        executed = [statement for statement in statements if statement.startswith(("SELECT", "UPDATE", "WITH"))]
    await engine.dispose()
    with sqlite3.connect(sqlite_path) as database:
        plans = [row[3] for text in executed for row in database.execute(f"EXPLAIN QUERY PLAN {text}")]

    assert executed
    assert [step for step in plans if _WHOLE_TABLE.match(step) or _ALL_OF_USER.match(step)] == []
