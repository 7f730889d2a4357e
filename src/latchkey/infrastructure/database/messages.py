"""Messages in SQL."""

from typing import Any

from sqlalchemy import Row, bindparam, select

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.message import Message, PastTurn, Seq
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import Order
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.session import Session, insert_mine, mine
from latchkey.infrastructure.database.tables import messages
from latchkey.infrastructure.database.tool_calls import SqlToolCalls

_ALL = select(*(column for column in messages.c if column.name != "user_id")).where(
    mine(messages), messages.c.conversation_id == bindparam("conversation")
)
_FORWARDS = _ALL.order_by(messages.c.seq).where(messages.c.seq > bindparam("after")).limit(bindparam("limit"))
_BACKWARDS = _ALL.order_by(messages.c.seq.desc()).where(messages.c.seq < bindparam("after")).limit(bindparam("limit"))
_ADD = insert_mine(messages)

_BEFORE_ALL, _AFTER_ALL = 0, 2**31 - 1
_MESSAGES_A_TURN = 2


class SqlMessages:
    """By `seq`. The tool calls of an answer are read from the ledger, and only where there are any."""

    def __init__(self, session: Session, ledger: SqlToolCalls) -> None:
        self._session = session
        self._ledger = ledger

    async def add(self, message: Message) -> None:
        await self._session.run(
            _ADD,
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
        if not self._session.scope.reaches(conversation_id):
            raise NotFound.of("conversation")
        statement, start = (_FORWARDS, _BEFORE_ALL) if order == "asc" else (_BACKWARDS, _AFTER_ALL)
        after = window.after(Seq) or start
        rows = await self._session.rows(
            statement, conversation=conversation_id, after=after, limit=window.limit + 1
        )
        calls = await self._ledger.of_turns([row.turn_id for row in rows if row.call_count])
        return window.page([_message(row, calls) for row in rows], key=lambda message: message.seq)

    async def history(self, conversation_id: ConversationId, turns: int) -> list[PastTurn]:
        rows = await self._session.rows(
            _BACKWARDS, conversation=conversation_id, after=_AFTER_ALL, limit=turns * _MESSAGES_A_TURN
        )
        calls = await self._ledger.of_turns([row.turn_id for row in rows if row.role == "user"])
        answers = {row.turn_id: row.content for row in rows if row.role == "assistant"}
        asked = [row for row in reversed(rows) if row.role == "user"][-turns:]
        return [PastTurn(row.content, calls.get(row.turn_id, []), answers.get(row.turn_id)) for row in asked]


def _message(row: Row[*tuple[Any, ...]], calls: dict[TurnId, list[ToolCall]]) -> Message:
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        turn_id=row.turn_id,
        seq=row.seq,
        role=row.role,
        content=row.content,
        tool_calls=calls.get(row.turn_id, []) if row.call_count else [],
        created_at=row.created_at,
    )
