"""Context tokens in SQL. Only a digest of the secret is ever stored."""

from collections.abc import Collection
from datetime import datetime

from msgspec import Struct
from sqlalchemy import bindparam, select, update

from latchkey.domain.credentials import ContextToken, ContextTokenId, Grant, Scope, TokenSecret
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.page import Page, Window
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.repositories.deletion import is_not_deleted
from latchkey.infrastructure.database.repositories.turns import TURN_STATE, TurnState
from latchkey.infrastructure.database.schema import context_tokens as tokens
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_except, insert_for_user, owned_by_user

_SELECT = select(*columns_except(tokens, "digest")).where(owned_by_user(tokens), is_not_deleted(tokens))
_TOOLS = len(_SELECT.selected_columns) - 2
"""The index of the column `tools`; the last one is `approve`."""
_HAS_ID = tokens.c.id == bindparam("key")
_OF_TURN = tokens.c.turn_id == bindparam("turn")
_VALID = (tokens.c.revoked_at.is_(None), tokens.c.expires_at > bindparam("now"))
_BY_DIGEST = _SELECT.where(tokens.c.digest == bindparam("digest"), *_VALID)
_WITH_TURN = _SELECT.add_columns(*TURN_STATE.c).outerjoin(TURN_STATE, TURN_STATE.c.id == tokens.c.turn_id)
_BY_DIGEST_FOR_SHARE = _WITH_TURN.where(tokens.c.digest == bindparam("digest"), *_VALID).with_for_update(
    read=True, of=tokens
)
_BY_ID = _SELECT.where(_HAS_ID)
_NEWEST = _SELECT.order_by(tokens.c.id.desc()).limit(bindparam("limit"))
_NEWEST_BEFORE = _NEWEST.where(tokens.c.id < bindparam("before"))
_INSERT = insert_for_user(tokens)
_UNREVOKED = (owned_by_user(tokens), tokens.c.revoked_at.is_(None))
_REVOKE = update(tokens).where(*_UNREVOKED, _HAS_ID).values(revoked_at=bindparam("now"))
_REVOKE_OF_TURN = update(tokens).where(*_UNREVOKED, _OF_TURN).values(revoked_at=bindparam("now"))
_EXTEND_OF_TURN = update(tokens).where(owned_by_user(tokens), _OF_TURN, *_VALID).values(expires_at=bindparam("until"))


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="context tokens"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    id: ContextTokenId


class SqlContextTokens:
    """Tokens, newest first. The secrets of added tokens are also appended to `added`."""

    def __init__(self, session: Session, added: list[TokenSecret]) -> None:
        self._session = session
        self._added = added

    async def resolve(self, secret: TokenSecret, now: datetime) -> Scope:
        """Return the scope of a valid token. Raises `Unauthenticated` for any other, without the reason."""
        return self._scope_of(await self._session.fetch_row(_BY_DIGEST, digest=secret.digest, now=now))

    async def resolve_and_lock(self, secret: TokenSecret, now: datetime) -> tuple[Scope, TurnState | None]:
        """Return the scope and the state of the token's turn. A revocation waits until the unit of work has ended."""
        row = await self._session.fetch_row(_BY_DIGEST_FOR_SHARE, digest=secret.digest, now=now)
        scope = self._scope_of(row and row[: -len(TURN_STATE.c)])
        return scope, None if row is None or scope.turn_id is None else TurnState(*row[-len(TURN_STATE.c) :])

    async def add(
        self,
        token: ContextToken,
        secret: TokenSecret,
        tools: Collection[str] | None = None,
        approve: Collection[str] = (),
    ) -> None:
        await self._session.defer(
            _INSERT,
            id=token.id,
            digest=secret.digest,
            grants=" ".join(token.grants),
            conversation_id=token.conversation_id,
            turn_id=token.turn_id,
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
            tools=None if tools is None else " ".join(sorted(tools)),
            approve=" ".join(sorted(approve)) or None,
        )
        self._added.append(secret)

    async def get(self, id: ContextTokenId) -> ContextToken:
        row = await self._session.fetch_row(_BY_ID, key=id)
        if row is None:
            raise NotFound.of("context token")
        return _token_from_row(row)

    async def page(self, window: Window) -> Page[ContextToken]:
        last = window.decode_cursor(_Cursor)
        limit = window.limit + 1
        rows = await (
            self._session.fetch(_NEWEST, limit=limit)
            if last is None
            else self._session.fetch(_NEWEST_BEFORE, limit=limit, before=last.id)
        )
        return window.to_page([_token_from_row(row) for row in rows], key=lambda token: _Cursor(token.id))

    async def revoke(self, id: ContextTokenId, now: datetime) -> None:
        if not await self._session.execute(_REVOKE, key=id, now=now):
            await self.get(id)

    async def revoke_for_turn(self, id: TurnId, now: datetime) -> None:
        await self._session.defer(_REVOKE_OF_TURN, turn=id, now=now)

    async def extend_for_turn(self, id: TurnId, until: datetime, now: datetime) -> None:
        await self._session.defer(_EXTEND_OF_TURN, turn=id, until=until, now=now)

    def _scope_of(self, row: Row | None) -> Scope:
        if row is None:
            raise Unauthenticated("This context token is unknown, expired or revoked: get a new one.")
        tools, approve = row[_TOOLS : _TOOLS + 2]
        limit = None if tools is None else tools.split()
        return _token_from_row(row).scope_for(self._session.scope.user_id, limit, (approve or "").split())


def _token_from_row(row: Row) -> ContextToken:
    """Grants are stored as a space-separated list (RFC 6749, 3.3). A grant unknown to this release is ignored."""
    id, grants, conversation_id, turn_id, created_at, expires_at, revoked_at = row[:_TOOLS]
    return ContextToken(
        id=id,
        grants=[Grant(word) for word in grants.split()],
        conversation_id=conversation_id,
        turn_id=turn_id,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
