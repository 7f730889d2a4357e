"""Repositories of conversations and their messages."""

from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    Select,
    UnaryExpression,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql import operators

from latchkey.domain.assistant import DEFAULT_ASSISTANT
from latchkey.domain.conversation import Conversation, ConversationId, NextMessage
from latchkey.domain.errors import NotFound
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.repositories import CallBounds, Order
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.repositories.deletion import conversation_is_not_deleted
from latchkey.infrastructure.database.repositories.tool_calls import SMALL_BYTES, SqlToolCalls
from latchkey.infrastructure.database.schema import conversations, messages
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    Statement,
    columns_except,
    columns_of,
    insert_for_user,
    octet_length,
    offsets,
    owned_by_user,
)

_IS_MINE = (owned_by_user(conversations), conversations.c.deleted_at.is_(None))
_SELECT = select(*columns_of(conversations, Conversation)).where(*_IS_MINE)
_HAS_ID = conversations.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True)
_NEWEST = _SELECT.order_by(conversations.c.updated_at.desc(), conversations.c.id.desc()).limit(bindparam("limit"))
_NEWEST_BEFORE = _NEWEST.where(
    conversations.c.updated_at <= bindparam("before"),
    or_(
        conversations.c.updated_at < bindparam("before"),
        and_(conversations.c.updated_at == bindparam("before"), conversations.c.id < bindparam("before_id")),
    ),
)
_INSERT = insert_for_user(conversations)
_UPDATE = update(conversations).where(*_IS_MINE, _HAS_ID)
_SET_LAST_SEQ = update(conversations).where(*_IS_MINE, _HAS_ID)
_NEXT_MESSAGE = _SET_LAST_SEQ.values(
    last_seq=conversations.c.last_seq + 1,
    updated_at=bindparam("now"),
    timezone=func.coalesce(bindparam("new_timezone", type_=conversations.c.timezone.type), conversations.c.timezone),
    # Conversations of early releases have messages and no assistant: the default one has answered them.
    assistant=func.coalesce(
        conversations.c.assistant,
        case(
            (conversations.c.last_seq == 0, bindparam("new_assistant", type_=conversations.c.assistant.type)),
            else_=DEFAULT_ASSISTANT,
        ),
    ),
).returning(conversations.c.last_seq, conversations.c.timezone, conversations.c.assistant)
_DELETE = _UPDATE.values(deleted_at=bindparam("now"))


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="conversations"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    updated_at: Annotated[datetime, Meta(tz=False)]
    id: ConversationId


class SqlConversations:
    """Conversations, latest activity first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, conversation: Conversation, messages: int = 0, timezone: str | None = None) -> None:
        await self._session.defer(_INSERT, last_seq=messages, timezone=timezone, **asdict(conversation))

    async def get(self, id: ConversationId, *, for_update: bool = False) -> Conversation:
        row = await self._session.fetch_row(_BY_ID_FOR_UPDATE if for_update else _BY_ID, key=self._require_in_scope(id))
        if row is None:
            raise NotFound.of("conversation")
        return Conversation(*row)

    async def page(self, window: Window) -> Page[Conversation]:
        if self._session.scope.conversation_id is not None:
            return Page([await self.get(self._session.scope.conversation_id)], None)
        last = window.decode_cursor(_Cursor)
        limit = window.limit + 1
        if last is None:
            rows = await self._session.fetch(_NEWEST, limit=limit)
        else:
            rows = await self._session.fetch(
                _NEWEST_BEFORE, limit=limit, before=last.updated_at.replace(tzinfo=UTC), before_id=last.id
            )
        return window.to_page(
            [Conversation(*row) for row in rows],
            key=lambda conversation: _Cursor(conversation.updated_at.replace(tzinfo=None), conversation.id),
        )

    async def update(self, conversation: Conversation) -> None:
        if not await self._session.execute(
            _UPDATE, key=self._require_in_scope(conversation.id), **asdict(conversation)
        ):
            raise NotFound.of("conversation")

    async def next_message(
        self,
        id: ConversationId,
        now: datetime,
        timezone: str | None = None,
        assistant: str = DEFAULT_ASSISTANT,
    ) -> NextMessage:
        key = self._require_in_scope(id)
        row = await self._session.fetch_row(
            _NEXT_MESSAGE, key=key, now=now, new_timezone=timezone, new_assistant=assistant
        )
        if row is None:
            raise NotFound.of("conversation")
        return NextMessage(*row)

    async def set_last_seq(self, id: ConversationId, seq: int, now: datetime) -> None:
        await self._session.defer(_SET_LAST_SEQ, key=self._require_in_scope(id), last_seq=seq, updated_at=now)

    async def delete(self, id: ConversationId, now: datetime) -> None:
        if not await self._session.execute(_DELETE, key=self._require_in_scope(id), now=now):
            raise NotFound.of("conversation")

    def _require_in_scope(self, id: ConversationId) -> ConversationId:
        if not self._session.scope.includes(id):
            raise NotFound.of("conversation")
        return id


_IN_CONVERSATION = (
    owned_by_user(messages),
    messages.c.conversation_id == bindparam("conversation"),
    conversation_is_not_deleted(bindparam("conversation")),
)


def _small_messages(
    order: UnaryExpression[int], *columns: ColumnElement[Any], after: ColumnElement[bool] | None = None
) -> Select[*tuple[Any, ...]]:
    """Return the query of up to `limit` messages in which larger contents are NULL, without sums of sizes.

    Its last column is NULL, where `_page_of_messages` has the number of messages.
    """
    size = octet_length(messages.c.content)
    small = case((size <= SMALL_BYTES, messages.c.content)).label("content")
    query = select(*(small if column is messages.c.content else column for column in columns), null()).where(
        *_IN_CONVERSATION
    )
    query = query if after is None else query.where(after)
    return query.order_by(order).limit(bindparam("limit"))


def _page_of_messages(
    order: UnaryExpression[int], *columns: ColumnElement[Any], after: ColumnElement[bool] | None = None
) -> Select[*tuple[Any, ...]]:
    """Return the query of up to `limit` messages that begin within `bytes`.

    Its last column is the number of messages without the bound of bytes.
    """
    limited = select(messages.c.seq, octet_length(messages.c.content).label("size")).where(*_IN_CONVERSATION)
    limited = limited if after is None else limited.where(after)
    candidates = limited.order_by(order).limit(bindparam("limit")).subquery()
    sized = offsets(candidates, "seq", newest_first=order.modifier is operators.desc_op)
    return (
        select(*columns, sized.c.count)
        .select_from(sized.join(messages, messages.c.seq == sized.c.of_key))
        .where(*_IN_CONVERSATION, sized.c.before < bindparam("bytes"))
        .order_by(order)
    )


_MESSAGE_COLUMNS = columns_except(messages)
_RECENT_COLUMNS = (messages.c.turn_id, messages.c.role, messages.c.content)
_RECENT_CONTENT = 2
_AFTER, _BEFORE = messages.c.seq > bindparam("after"), messages.c.seq < bindparam("after")
# Each as the query of small messages and the bounded one.
_ASCENDING, _DESCENDING, _RECENT = (
    (_small_messages(order, *columns, after=after), _page_of_messages(order, *columns, after=after))
    for order, columns, after in (
        (messages.c.seq.asc(), _MESSAGE_COLUMNS, _AFTER),
        (messages.c.seq.desc(), _MESSAGE_COLUMNS, _BEFORE),
        (messages.c.seq.desc(), _RECENT_COLUMNS, None),
    )
)
_ASSISTANT_MESSAGE = select(*columns_except(messages)).where(
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

    async def add(self, message: Message) -> None:
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
        )

    async def page(self, conversation_id: ConversationId, window: Window, order: Order) -> Page[Message]:
        self._check(conversation_id)
        statements, start = (_ASCENDING, _MIN_SEQ) if order == "asc" else (_DESCENDING, _MAX_SEQ)
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
            [_message_from_row(row, calls) for row in rows],
            key=lambda message: _MessageCursor(message.seq),
            has_more=len(rows) < count,
        )

    async def assistant_message(self, turn_id: TurnId, calls: list[ToolCall]) -> Message | None:
        row = await self._session.fetch_row(_ASSISTANT_MESSAGE, turn=turn_id)
        return None if row is None else _message_from_row((*row, None), {turn_id: calls})

    async def history(self, conversation_id: ConversationId, turns: int, characters: int) -> list[PastTurn]:
        self._check(conversation_id)
        # The stored sizes are in bytes: this reads up to four times as much as needed, never less.
        rows = await self._fetch(
            _RECENT,
            _RECENT_CONTENT,
            characters * _MAX_BYTES_PER_CHARACTER,
            conversation=conversation_id,
            limit=turns * _MESSAGES_PER_TURN,
        )
        questions = [(turn_id, content) for turn_id, role, content, _ in rows if role == "user"][:turns]
        answers = {turn_id: content for turn_id, role, content, _ in rows if role == "assistant"}
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
    """Return the message of a row of a page, whose last column is no part of it."""
    id, conversation_id, turn_id, seq, role, content, call_count, created_at, _ = row
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
