"""Messages in SQL."""

from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy import bindparam, select

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import Page, Window
from latchkey.domain.repositories import Order
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.repositories.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.schema import messages
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_except, insert_for_user, owned_by_user

_IN_CONVERSATION = (owned_by_user(messages), messages.c.conversation_id == bindparam("conversation"))
_SELECT = select(*columns_except(messages)).where(*_IN_CONVERSATION)
_ASCENDING = _SELECT.order_by(messages.c.seq).where(messages.c.seq > bindparam("after")).limit(bindparam("limit"))
_DESCENDING = (
    _SELECT.order_by(messages.c.seq.desc()).where(messages.c.seq < bindparam("after")).limit(bindparam("limit"))
)
_RECENT = (
    select(messages.c.turn_id, messages.c.role, messages.c.content)
    .where(*_IN_CONVERSATION)
    .order_by(messages.c.seq.desc())
    .limit(bindparam("limit"))
)
_ASSISTANT_MESSAGE = select(*columns_except(messages)).where(
    owned_by_user(messages), messages.c.turn_id == bindparam("turn"), messages.c.role == "assistant"
)
_INSERT = insert_for_user(messages)

_MIN_SEQ, _MAX_SEQ = 0, 2**31 - 1
_MESSAGES_PER_TURN = 2
_COLUMNS = [column.name for column in columns_except(messages)]
_TURN, _CALL_COUNT = _COLUMNS.index("turn_id"), _COLUMNS.index("call_count")


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="messages"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    seq: Annotated[int, Meta(gt=_MIN_SEQ, lt=_MAX_SEQ)]


class SqlMessages:
    """Messages in the order of `seq`. Tool calls are read in a second query, and only if a message has some."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tool_calls = SqlToolCalls(session)

    async def add(self, message: Message) -> None:
        await self._session.defer(
            _INSERT,
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
        statement, start = (_ASCENDING, _MIN_SEQ) if order == "asc" else (_DESCENDING, _MAX_SEQ)
        last = window.decode_cursor(_Cursor)
        after = last.seq if last else start
        rows = await self._session.fetch(statement, conversation=conversation_id, after=after, limit=window.limit + 1)
        calls = await self._tool_calls.list_by_turn([row[_TURN] for row in rows if row[_CALL_COUNT]])
        return window.to_page([_message_from_row(row, calls) for row in rows], key=lambda message: _Cursor(message.seq))

    async def assistant_message(self, turn_id: TurnId, calls: list[ToolCall]) -> Message | None:
        row = await self._session.fetch_row(_ASSISTANT_MESSAGE, turn=turn_id)
        return None if row is None else _message_from_row(row, {turn_id: calls})

    async def history(self, conversation_id: ConversationId, turns: int) -> list[PastTurn]:
        self._check(conversation_id)
        rows = await self._session.fetch(_RECENT, conversation=conversation_id, limit=turns * _MESSAGES_PER_TURN)
        questions = [(turn_id, content) for turn_id, role, content in reversed(rows) if role == "user"][-turns:]
        answers = {turn_id: content for turn_id, role, content in rows if role == "assistant"}
        calls = await self._tool_calls.list_by_turn([turn_id for turn_id, _ in questions])
        return [PastTurn(content, calls.get(turn_id, []), answers.get(turn_id)) for turn_id, content in questions]

    def _check(self, conversation_id: ConversationId) -> None:
        if not self._session.scope.includes(conversation_id):
            raise NotFound.of("conversation")


def _message_from_row(row: Row, calls: dict[TurnId, list[ToolCall]]) -> Message:
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
