"""Repository of conversations."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct
from sqlalchemy import (
    Select,
    Subquery,
    Table,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from latchkey.domain.assistant import DEFAULT_ASSISTANT
from latchkey.domain.conversation import (
    LAST_MESSAGE_CHARS,
    Conversation,
    ConversationId,
    LastMessage,
    NextMessage,
)
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.infrastructure.database.schema import conversations, messages, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    insert_for_user,
    owned_by_user,
)

_IS_MINE = (owned_by_user(conversations), conversations.c.deleted_at.is_(None))
_FIELDS = [name for name in Conversation.__struct_fields__ if name in conversations.c]
_MESSAGES = (
    select(
        messages.c.conversation_id,
        messages.c.seq,
        messages.c.id,
        messages.c.role,
        func.substr(messages.c.content, 1, LAST_MESSAGE_CHARS),
        messages.c.created_at,
    )
    .where(owned_by_user(messages))
    .subquery("message")
)
_RUNNING = (
    select(turns.c.conversation_id, turns.c.id)
    .where(
        owned_by_user(turns),
        turns.c.status == literal("running", literal_execute=True),
        turns.c.lease_until > bindparam("at"),
    )
    .subquery("running")
)


def _select(source: Table | Subquery) -> Select[*tuple[Any, ...]]:
    """Return the query of the conversations of this source, each with its last message and its running turn."""
    # The message with the last number is never one of a replaced turn: the turn that replaces it has a later one.
    is_last = and_(_MESSAGES.c.conversation_id == source.c.id, _MESSAGES.c.seq == source.c.last_seq)
    joined = source.outerjoin(_MESSAGES, is_last).outerjoin(_RUNNING, _RUNNING.c.conversation_id == source.c.id)
    columns = (*(source.c[name] for name in _FIELDS), _RUNNING.c.id, *list(_MESSAGES.c)[2:])
    return select(*columns).select_from(joined)


_SELECT = _select(conversations).where(*_IS_MINE)
_HAS_ID = conversations.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True, of=conversations)
_HAS_NAME = or_(_HAS_ID, conversations.c.client_conversation_id == bindparam("name"))
_ID_FIRST = case((_HAS_ID, 0), else_=1)
_ID_BY_NAME = select(conversations.c.id).where(*_IS_MINE, _HAS_NAME).order_by(_ID_FIRST).limit(1)
NAMED_CONVERSATION = _ID_BY_NAME.scalar_subquery()
"""The id of the conversation with the client's own `name`, or with the id `key`, which is `name_as_id` of it."""
_CANDIDATES = (
    select(*(conversations.c[name] for name in _FIELDS), conversations.c.last_seq)
    .where(*_IS_MINE)
    .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
    .limit(bindparam("limit"))
)


def _page(candidates: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Return the query of a page. Only its conversations are joined, however the database plans it."""
    conversation = candidates.subquery("conversation")
    return _select(conversation).order_by(conversation.c.updated_at.desc(), conversation.c.id.desc())


_NEWEST = _page(_CANDIDATES)
_NEWEST_BEFORE = _page(
    _CANDIDATES.where(
        conversations.c.updated_at <= bindparam("before"),
        or_(
            conversations.c.updated_at < bindparam("before"),
            and_(conversations.c.updated_at == bindparam("before"), conversations.c.id < bindparam("before_id")),
        ),
    )
)
_INSERT = insert_for_user(conversations)
_UPDATE = update(conversations).where(*_IS_MINE, _HAS_ID)
_OWN_OR_NEW_TITLE = func.coalesce(conversations.c.title, bindparam("new_title", type_=conversations.c.title.type))
_SET_LAST_SEQ = _UPDATE.values(last_seq=bindparam("new_seq"), updated_at=bindparam("now"), title=_OWN_OR_NEW_TITLE)
_SET_MISSING_TITLE = _UPDATE.values(title=_OWN_OR_NEW_TITLE)
_HAS_WAITING_TURN = exists().where(
    owned_by_user(turns),
    turns.c.conversation_id == bindparam("key"),
    turns.c.status == literal("waiting", literal_execute=True),
)
_NEXT_MESSAGE = _UPDATE.values(
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
).returning(conversations.c.last_seq, conversations.c.timezone, conversations.c.assistant, _HAS_WAITING_TURN)
# Another conversation may be given the name while this one is being removed.
_DELETE = _UPDATE.values(deleted_at=bindparam("now"), client_conversation_id=null())


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="conversations"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    updated_at: Annotated[datetime, Meta(tz=False)]
    id: ConversationId


class SqlConversations:
    """Conversations, latest activity first. `now` decides which turns are running."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    async def add(self, conversation: Conversation, messages: int = 0, timezone: str | None = None) -> None:
        await self._session.defer(_INSERT, last_seq=messages, timezone=timezone, **_values(conversation))

    async def get(self, id: ConversationId, *, for_update: bool = False) -> Conversation:
        statement = _BY_ID_FOR_UPDATE if for_update else _BY_ID
        row = await self._session.fetch_row(statement, key=self._require_in_scope(id), at=self._now)
        if row is None:
            raise NotFound.of("conversation")
        return _from_row(row)

    async def find_id(self, name: str) -> ConversationId | None:
        row = await self._session.fetch_row(_ID_BY_NAME, name=name, key=name_as_id(name))
        return row[0] if row and self._session.scope.includes(row[0]) else None

    async def page(self, window: Window) -> Page[Conversation]:
        if self._session.scope.conversation_id is not None:
            return Page([await self.get(self._session.scope.conversation_id)], None)
        last = window.decode_cursor(_Cursor)
        params: dict[str, Any] = {"limit": window.limit + 1, "at": self._now}
        if last is None:
            rows = await self._session.fetch(_NEWEST, **params)
        else:
            rows = await self._session.fetch(
                _NEWEST_BEFORE, before=last.updated_at.replace(tzinfo=UTC), before_id=last.id, **params
            )
        return window.to_page(
            [_from_row(row) for row in rows],
            key=lambda conversation: _Cursor(conversation.updated_at.replace(tzinfo=None), conversation.id),
        )

    async def update(self, conversation: Conversation) -> None:
        if not await self._session.execute(
            _UPDATE, key=self._require_in_scope(conversation.id), **_values(conversation)
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
        seq, remembered, assistant, has_waiting_turn = row
        return NextMessage(seq, remembered, assistant, bool(has_waiting_turn))

    async def set_last_seq(self, id: ConversationId, seq: int, now: datetime, title: str | None = None) -> None:
        await self._session.defer(_SET_LAST_SEQ, key=self._require_in_scope(id), new_seq=seq, now=now, new_title=title)

    async def set_missing_title(self, id: ConversationId, title: str) -> None:
        await self._session.execute(_SET_MISSING_TITLE, key=self._require_in_scope(id), new_title=title)

    async def delete(self, id: ConversationId, now: datetime) -> None:
        if not await self._session.execute(_DELETE, key=self._require_in_scope(id), now=now):
            raise NotFound.of("conversation")

    def _require_in_scope(self, id: ConversationId) -> ConversationId:
        if not self._session.scope.includes(id):
            raise NotFound.of("conversation")
        return id


def _values(conversation: Conversation) -> dict[str, Any]:
    return {name: getattr(conversation, name) for name in _FIELDS}


def _from_row(row: Row) -> Conversation:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=False))
    running_turn_id, id, role, content, created_at = row[len(_FIELDS) :]
    last_message = None if id is None else LastMessage(id, role, content, created_at)
    return Conversation(**values, last_message=last_message, running_turn_id=running_turn_id)


_NIL = UUID(int=0)


def name_as_id(name: str) -> UUID:
    """Return the UUID whose usual form the name is, else the nil UUID, which no conversation has."""
    try:
        id = UUID(name)
    except ValueError:
        return _NIL
    return id if str(id) == name.lower() else _NIL
