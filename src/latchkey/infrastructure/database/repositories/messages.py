"""Repository of messages, and the history for the model."""

from operator import itemgetter
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import (
    ColumnElement,
    Select,
    UnaryExpression,
    and_,
    bindparam,
    case,
    func,
    null,
    select,
    update,
)
from sqlalchemy.sql import operators

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.message import UNDONE, Message, PastTurn
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_repositories import CallBounds, Order
from latchkey.infrastructure.database.repositories.deletion import conversation_is_not_deleted
from latchkey.infrastructure.database.repositories.tool_calls import SMALL_BYTES, SqlToolCalls
from latchkey.infrastructure.database.schema import messages, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    Statement,
    columns_except,
    insert_for_user,
    octet_length,
    offsets,
    owned_by_user,
)

_IN_CONVERSATION = (
    owned_by_user(messages),
    messages.c.conversation_id == bindparam("conversation"),
    conversation_is_not_deleted(bindparam("conversation")),
)


def _small_messages(
    order: UnaryExpression[int], *columns: ColumnElement[Any], where: ColumnElement[bool]
) -> Select[*tuple[Any, ...]]:
    """Return the query of up to `limit` messages in which larger contents are NULL, without sums of sizes.

    Its last column is NULL, where `_page_of_messages` has the number of messages.
    """
    size = octet_length(messages.c.content)
    small = case((size <= SMALL_BYTES, messages.c.content)).label("content")
    query = select(*(small if column is messages.c.content else column for column in columns), null()).where(
        *_IN_CONVERSATION, where
    )
    return query.order_by(order).limit(bindparam("limit"))


def _page_of_messages(
    order: UnaryExpression[int], *columns: ColumnElement[Any], where: ColumnElement[bool]
) -> Select[*tuple[Any, ...]]:
    """Return the query of up to `limit` messages that begin within `bytes`.

    Its last column is the number of messages without the bound of bytes.
    """
    limited = select(messages.c.seq, octet_length(messages.c.content).label("size")).where(*_IN_CONVERSATION, where)
    candidates = limited.order_by(order).limit(bindparam("limit")).subquery()
    sized = offsets(candidates, "seq", newest_first=order.modifier is operators.desc_op)
    return (
        select(*columns, sized.c.count)
        .select_from(sized.join(messages, messages.c.seq == sized.c.of_key))
        .where(*_IN_CONVERSATION, sized.c.before < bindparam("bytes"))
        .order_by(order)
    )


_MESSAGE_COLUMNS = columns_except(messages, "client_id", "replaced_by", "undone_at")
_RECENT_COLUMNS = (messages.c.turn_id, messages.c.role, messages.c.content, messages.c.undone_at)
_RECENT_CONTENT = 2
_IS_ACTIVE = messages.c.replaced_by.is_(None)
_AFTER, _BEFORE = messages.c.seq > bindparam("after"), messages.c.seq < bindparam("after")
# Each as the query of small messages and the bounded one.
_ASCENDING, _DESCENDING, _RECENT, _ALL_ASCENDING, _ALL_DESCENDING = (
    (_small_messages(order, *columns, where=where), _page_of_messages(order, *columns, where=where))
    for order, columns, where in (
        (messages.c.seq.asc(), _MESSAGE_COLUMNS, and_(_AFTER, _IS_ACTIVE)),
        (messages.c.seq.desc(), _MESSAGE_COLUMNS, and_(_BEFORE, _IS_ACTIVE)),
        (messages.c.seq.desc(), _RECENT_COLUMNS, and_(_BEFORE, _IS_ACTIVE)),
        (messages.c.seq.asc(), _MESSAGE_COLUMNS, _AFTER),
        (messages.c.seq.desc(), _MESSAGE_COLUMNS, _BEFORE),
    )
)
_FIRST_SEQ_OF_TURN = (
    select(func.min(messages.c.seq))
    .where(
        owned_by_user(messages),
        messages.c.conversation_id == bindparam("conversation"),
        messages.c.turn_id == bindparam("turn"),
    )
    .scalar_subquery()
)
_REPLACE = (
    update(messages)
    .where(
        owned_by_user(messages),
        messages.c.conversation_id == bindparam("conversation"),
        _IS_ACTIVE,
        messages.c.seq >= _FIRST_SEQ_OF_TURN,
    )
    .values(replaced_by=bindparam("by"))
)
_REPLACE_TURNS = (
    update(turns)
    .where(
        owned_by_user(turns),
        turns.c.id.in_(
            select(messages.c.turn_id).where(
                owned_by_user(messages),
                messages.c.conversation_id == bindparam("conversation"),
                messages.c.replaced_by == bindparam("by"),
            )
        ),
    )
    .values(replaced_by=bindparam("by"))
)
_ASSISTANT_MESSAGE = select(*_MESSAGE_COLUMNS).where(
    owned_by_user(messages), messages.c.turn_id == bindparam("turn"), messages.c.role == "assistant"
)
_INSERT_MESSAGE = insert_for_user(messages)

_MIN_SEQ, _MAX_SEQ = 0, 2**31 - 1
_MESSAGES_PER_TURN = 2
_MAX_BYTES_PER_CHARACTER = 4
_NAMES = [column.name for column in _MESSAGE_COLUMNS]
_TURN, _CONTENT, _CALL_COUNT = (_NAMES.index(name) for name in ("turn_id", "content", "call_count"))


class _MessageCursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="messages"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    seq: Annotated[int, Meta(gt=_MIN_SEQ, lt=_MAX_SEQ)]


class SqlMessages:
    """Messages in the order of `seq`. Tool calls are read in a second query, and only if a message has some."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tool_calls = SqlToolCalls(session)

    async def add(self, message: Message, client_id: str | None = None) -> None:
        await self._session.defer(
            _INSERT_MESSAGE,
            id=message.id,
            conversation_id=message.conversation_id,
            turn_id=message.turn_id,
            seq=message.seq,
            role=message.role,
            content=message.content,
            call_count=len(message.tool_calls),
            created_at=message.created_at,
            client_id=client_id,
        )

    async def replace(self, conversation_id: ConversationId, turn_id: TurnId, by: TurnId) -> None:
        self._check(conversation_id)
        if not await self._session.execute(_REPLACE, conversation=conversation_id, turn=turn_id, by=by):
            raise NotFound.of("turn")
        await self._session.execute(_REPLACE_TURNS, conversation=conversation_id, by=by)

    async def page(
        self, conversation_id: ConversationId, window: Window, order: Order, *, replaced: bool = False
    ) -> Page[Message]:
        self._check(conversation_id)
        ascending, descending = (_ALL_ASCENDING, _ALL_DESCENDING) if replaced else (_ASCENDING, _DESCENDING)
        statements, start = (ascending, _MIN_SEQ) if order == "asc" else (descending, _MAX_SEQ)
        last = window.decode_cursor(_MessageCursor)
        after = last.seq if last else start
        rows = await self._fetch(
            statements, _CONTENT, PAGE_BYTES, conversation=conversation_id, after=after, limit=window.limit + 1
        )
        count = (rows[0][-1] if rows else 0) or len(rows)
        turn_ids = [row[_TURN] for row in rows if row[_CALL_COUNT]]
        calls: dict[TurnId, list[ToolCall]] = {}
        if turn_ids:
            calls, rows = await self._tool_calls.list_for_page(turn_ids, rows, _TURN, order)
        return window.to_page(
            [_message_from_row(row[:-1], calls) for row in rows],
            key=lambda message: _MessageCursor(message.seq),
            has_more=len(rows) < count,
        )

    async def assistant_message(self, turn_id: TurnId, calls: list[ToolCall]) -> Message | None:
        row = await self._session.fetch_row(_ASSISTANT_MESSAGE, turn=turn_id)
        return None if row is None else _message_from_row(row, {turn_id: calls})

    async def history(
        self, conversation_id: ConversationId, turns: int, characters: int, before: int | None = None
    ) -> list[PastTurn]:
        self._check(conversation_id)
        # The stored sizes are in bytes: this reads up to four times as much as needed, never less.
        rows = await self._fetch(
            _RECENT,
            _RECENT_CONTENT,
            characters * _MAX_BYTES_PER_CHARACTER,
            conversation=conversation_id,
            after=_MAX_SEQ if before is None else before,
            limit=turns * _MESSAGES_PER_TURN,
        )
        questions = [(turn_id, content) for turn_id, role, content, *_ in rows if role == "user"][:turns]
        answers = {turn_id: content for turn_id, role, content, *_ in rows if role == "assistant"}
        for turn_id in {turn_id for turn_id, _, _, undone_at, _ in rows if undone_at is not None}:
            answers[turn_id] = f"{answers[turn_id]}\n\n{UNDONE}" if turn_id in answers else UNDONE
        bounds = CallBounds(page_bytes=characters, turn_bytes=characters, field_bytes=characters)
        page = await self._tool_calls.list_by_turn([turn_id for turn_id, _ in questions], bounds, "desc")
        history: list[PastTurn] = []
        for turn_id, question in questions:
            turn = PastTurn(question, page.calls.get(turn_id, []), answers.get(turn_id))
            characters -= turn.characters
            if characters < 0 or not page.includes(turn_id) or any(call.omitted for call in turn.tool_calls):
                break
            history.append(turn)
        return history[::-1]

    async def _fetch(
        self, statements: tuple[Statement, Statement], content: int, max_bytes: int, **params: Any
    ) -> list[Row]:
        """Read small messages in one way, and if one is large, bounded by the sum of their sizes."""
        small, bounded = statements
        rows = await self._session.fetch(small, **params)
        if None not in map(itemgetter(content), rows):
            return rows
        return await self._session.fetch(bounded, bytes=max_bytes, **params)

    def _check(self, conversation_id: ConversationId) -> None:
        if not self._session.scope.includes(conversation_id):
            raise NotFound.of("conversation")


def _message_from_row(row: Row, calls: dict[TurnId, list[ToolCall]]) -> Message:
    """Return the message of a row with `_MESSAGE_COLUMNS`, with these calls in it."""
    id, conversation_id, turn_id, seq, role, content, call_count, created_at = row
    return Message(
        id=id,
        conversation_id=conversation_id,
        turn_id=turn_id,
        seq=seq,
        role=role,
        content=content,
        tool_calls=calls.get(turn_id, []) if call_count else [],
        created_at=created_at,
    )
