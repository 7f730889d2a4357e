"""The queries of turns with the user's messages, which front ends read."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, bindparam, case, or_, select

from latchkey.domain.message import Message
from latchkey.domain.turn import TurnSummary
from latchkey.domain.turn_repositories import TurnWithMessage
from latchkey.infrastructure.database.repositories.conversations import NAMED_CONVERSATION
from latchkey.infrastructure.database.repositories.deletion import conversation_is_not_deleted, is_not_deleted
from latchkey.infrastructure.database.repositories.tool_calls import SMALL_BYTES
from latchkey.infrastructure.database.schema import messages, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Statement, octet_length, owned_by_user


def _with_message(content: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    """Return the query of turns with this content of the user's message."""
    columns = (
        turns.c.id,
        turns.c.conversation_id,
        turns.c.status,
        turns.c.assistant,
        turns.c.metadata,
        turns.c.started_at,
        case((turns.c.finished_at.is_(None), turns.c.lease_until)).label("lease_until"),
        turns.c.client_run_id,
        messages.c.client_id,
        messages.c.id.label("message_id"),
        messages.c.seq,
        content,
        messages.c.created_at,
    )
    of_turn = and_(messages.c.user_id == turns.c.user_id, messages.c.turn_id == turns.c.id)
    joined = select(*columns).join_from(turns, messages, of_turn)
    return joined.where(owned_by_user(turns), owned_by_user(messages), messages.c.role == "user")


_WITH_MESSAGE = _with_message(messages.c.content)
_IS_SMALL = octet_length(messages.c.content) <= SMALL_BYTES
_WITH_SMALL_MESSAGE = _with_message(case((_IS_SMALL, messages.c.content)).label("content"))
BY_ID = _WITH_MESSAGE.where(is_not_deleted(turns), turns.c.id == bindparam("key"))


def _page(condition: ColumnElement[bool], order: ColumnElement[Any]) -> tuple[Statement, Statement]:
    """Return two queries of up to `limit` turns of the named conversation that are not replaced.

    The first returns NULL for large contents, the second returns all contents.

    The turns are chosen in a query of their own: if the condition on their ids were beside the join, SQLite would
    apply it to the messages of the user, and read most of them for each turn.
    """
    of_conversation = turns.c.conversation_id == NAMED_CONVERSATION
    ids = select(turns.c.id).where(owned_by_user(turns), of_conversation, turns.c.replaced_by.is_(None), condition)
    is_chosen = turns.c.id.in_(ids.order_by(order).limit(bindparam("limit")))
    return _WITH_SMALL_MESSAGE.where(is_chosen).order_by(order), _WITH_MESSAGE.where(is_chosen).order_by(order)


NEWEST = _page(turns.c.id < bindparam("before"), turns.c.id.desc())
OLDEST = _page(turns.c.id > bindparam("after"), turns.c.id.asc())
CONTENT = [column.name for column in _WITH_MESSAGE.selected_columns].index("content")
LARGE_MESSAGES = 16
"""A page with large messages has at most this many turns: a message has up to 128 KiB."""
# On messages alone: only those of the conversation are read, and then the turn of one of them.
BY_MESSAGE = (
    _WITH_MESSAGE.where(
        messages.c.conversation_id == bindparam("conversation"),
        messages.c.replaced_by.is_(None),
        conversation_is_not_deleted(bindparam("conversation")),
        or_(
            messages.c.client_id == bindparam("client_id"),
            messages.c.id == bindparam("id"),
            messages.c.turn_id == bindparam("id"),
        ),
    )
    .order_by(messages.c.seq.desc())
    .limit(1)
)


def turn_with_message(row: Row) -> TurnWithMessage:
    """Return the turn of a row of these queries."""
    id, conversation_id, status, assistant, metadata, started_at, lease_until, run_id, *of_message = row
    client_id, message_id, seq, content, created_at = of_message
    decoded = msgspec.json.decode(metadata) if metadata else {}
    turn = TurnSummary(id, conversation_id, status, assistant, decoded, started_at, lease_until, run_id)
    message = Message(
        id=message_id,
        conversation_id=conversation_id,
        turn_id=id,
        seq=seq,
        role="user",
        content=content,
        tool_calls=[],
        created_at=created_at,
    )
    return TurnWithMessage(turn, message, client_id)
