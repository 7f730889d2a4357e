"""Conversations in SQL."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import asdict
from sqlalchemy import and_, bindparam, delete, or_, select, update

from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.infrastructure.database.schema import context_tokens, conversations, tasks
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user

_SELECT = select(*columns_of(conversations, Conversation)).where(owned_by_user(conversations))
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
_UPDATE = update(conversations).where(owned_by_user(conversations), _HAS_ID)
_SET_LAST_SEQ = update(conversations).where(owned_by_user(conversations), _HAS_ID)
_NEXT_SEQ = _SET_LAST_SEQ.values(last_seq=conversations.c.last_seq + 1, updated_at=bindparam("now")).returning(
    conversations.c.last_seq
)
_DELETE_TOKENS = delete(context_tokens).where(
    owned_by_user(context_tokens), context_tokens.c.conversation_id == bindparam("key")
)
_DETACH_TASKS = (
    update(tasks).where(owned_by_user(tasks), tasks.c.conversation_id == bindparam("key")).values(conversation_id=None)
)
_DELETE = delete(conversations).where(owned_by_user(conversations), _HAS_ID)


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="conversations"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    updated_at: Annotated[datetime, Meta(tz=False)]
    id: ConversationId


class SqlConversations:
    """Conversations, latest activity first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, conversation: Conversation, messages: int = 0) -> None:
        await self._session.defer(_INSERT, last_seq=messages, **asdict(conversation))

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

    async def next_seq(self, id: ConversationId, now: datetime) -> int:
        row = await self._session.fetch_row(_NEXT_SEQ, key=self._require_in_scope(id), now=now)
        if row is None:
            raise NotFound.of("conversation")
        seq: int = row[0]
        return seq

    async def set_last_seq(self, id: ConversationId, seq: int, now: datetime) -> None:
        await self._session.defer(_SET_LAST_SEQ, key=self._require_in_scope(id), last_seq=seq, updated_at=now)

    async def delete(self, id: ConversationId) -> None:
        # Tokens first: this waits for the running calls, which lock their token before anything else.
        await self._session.execute(_DELETE_TOKENS, key=self._require_in_scope(id))
        await self._session.execute(_DETACH_TASKS, key=id)
        if not await self._session.execute(_DELETE, key=id):
            raise NotFound.of("conversation")

    def _require_in_scope(self, id: ConversationId) -> ConversationId:
        if not self._session.scope.includes(id):
            raise NotFound.of("conversation")
        return id
