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

_ALL = select(*columns_of(conversations, Conversation)).where(owned_by_user(conversations))
_KEY = conversations.c.id == bindparam("key")
_ONE = _ALL.where(_KEY)
_ONE_FOR_UPDATE = _ONE.with_for_update(key_share=True)
_NEWEST = _ALL.order_by(conversations.c.updated_at.desc(), conversations.c.id.desc()).limit(bindparam("limit"))
_OLDER = _NEWEST.where(
    conversations.c.updated_at <= bindparam("before"),
    or_(
        conversations.c.updated_at < bindparam("before"),
        and_(conversations.c.updated_at == bindparam("before"), conversations.c.id < bindparam("before_id")),
    ),
)
_ADD = insert_for_user(conversations)
_REPLACE = update(conversations).where(owned_by_user(conversations), _KEY)
_NUMBER = update(conversations).where(owned_by_user(conversations), _KEY)
_NEXT = _NUMBER.values(last_seq=conversations.c.last_seq + 1, updated_at=bindparam("now")).returning(
    conversations.c.last_seq
)
_REMOVE_TOKENS = delete(context_tokens).where(
    owned_by_user(context_tokens), context_tokens.c.conversation_id == bindparam("key")
)
_LEAVE_TASKS = (
    update(tasks).where(owned_by_user(tasks), tasks.c.conversation_id == bindparam("key")).values(conversation_id=None)
)
_REMOVE = delete(conversations).where(owned_by_user(conversations), _KEY)


class _Last(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="conversations"):
    """The last item of a page, as its cursor names it; the tag tells it from the cursors of other listings."""

    updated_at: Annotated[datetime, Meta(tz=False)]
    id: ConversationId


class SqlConversations:
    """Newest activity first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, conversation: Conversation, messages: int = 0) -> None:
        await self._session.defer(_ADD, last_seq=messages, **asdict(conversation))

    async def get(self, id: ConversationId, *, for_update: bool = False) -> Conversation:
        row = await self._session.fetch_row(_ONE_FOR_UPDATE if for_update else _ONE, key=self._inside(id))
        if row is None:
            raise NotFound.of("conversation")
        return Conversation(*row)

    async def page(self, window: Window) -> Page[Conversation]:
        if self._session.scope.conversation_id is not None:
            return Page([await self.get(self._session.scope.conversation_id)], None)
        last = window.decode_cursor(_Last)
        limit = window.limit + 1
        if last is None:
            rows = await self._session.fetch(_NEWEST, limit=limit)
        else:
            rows = await self._session.fetch(
                _OLDER, limit=limit, before=last.updated_at.replace(tzinfo=UTC), before_id=last.id
            )
        return window.to_page(
            [Conversation(*row) for row in rows],
            key=lambda found: _Last(found.updated_at.replace(tzinfo=None), found.id),
        )

    async def update(self, conversation: Conversation) -> None:
        if not await self._session.execute(_REPLACE, key=self._inside(conversation.id), **asdict(conversation)):
            raise NotFound.of("conversation")

    async def next_seq(self, id: ConversationId, now: datetime) -> int:
        row = await self._session.fetch_row(_NEXT, key=self._inside(id), now=now)
        if row is None:
            raise NotFound.of("conversation")
        seq: int = row[0]
        return seq

    async def set_last_seq(self, id: ConversationId, seq: int, now: datetime) -> None:
        await self._session.defer(_NUMBER, key=self._inside(id), last_seq=seq, updated_at=now)

    async def delete(self, id: ConversationId) -> None:
        # Tokens first: this waits for the calls under way, in the order in which they lock.
        await self._session.execute(_REMOVE_TOKENS, key=self._inside(id))
        await self._session.execute(_LEAVE_TASKS, key=id)
        if not await self._session.execute(_REMOVE, key=id):
            raise NotFound.of("conversation")

    def _inside(self, id: ConversationId) -> ConversationId:
        if not self._session.scope.includes(id):
            raise NotFound.of("conversation")
        return id
