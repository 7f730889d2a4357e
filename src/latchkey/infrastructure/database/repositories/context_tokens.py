"""Context tokens in SQL. Only a digest of the secret is ever stored."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import bindparam, select, update

from latchkey.domain.credentials import ContextToken, ContextTokenId, Grant, Scope, TokenSecret
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.page import Page, Window
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.repositories.turn_state import TURN_STATE, TurnState
from latchkey.infrastructure.database.schema import context_tokens as tokens
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_except, insert_for_user, owned_by_user

_ALL = select(*columns_except(tokens, "digest")).where(owned_by_user(tokens))
_KEY = tokens.c.id == bindparam("key")
_OF_TURN = tokens.c.turn_id == bindparam("turn")
_ALIVE = (tokens.c.revoked_at.is_(None), tokens.c.expires_at > bindparam("now"))
_BY_DIGEST = _ALL.where(tokens.c.digest == bindparam("digest"), *_ALIVE)
_WITH_TURN = _ALL.add_columns(*TURN_STATE.c).outerjoin(TURN_STATE, TURN_STATE.c.id == tokens.c.turn_id)
_HELD = _WITH_TURN.where(tokens.c.digest == bindparam("digest"), *_ALIVE).with_for_update(read=True, of=tokens)
_ONE = _ALL.where(_KEY)
_NEWEST = _ALL.order_by(tokens.c.id.desc()).limit(bindparam("limit"))
_OLDER = _NEWEST.where(tokens.c.id < bindparam("before"))
_ADD = insert_for_user(tokens)
_GRANTS = {grant.value: grant for grant in Grant}
_MINE_UNREVOKED = (owned_by_user(tokens), tokens.c.revoked_at.is_(None))
_REVOKE = update(tokens).where(*_MINE_UNREVOKED, _KEY).values(revoked_at=bindparam("now"))
_REVOKE_OF_TURN = update(tokens).where(*_MINE_UNREVOKED, _OF_TURN).values(revoked_at=bindparam("now"))
_EXTEND_OF_TURN = update(tokens).where(owned_by_user(tokens), _OF_TURN, *_ALIVE).values(expires_at=bindparam("until"))


class _Last(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="context tokens"):
    """The last item of a page, as its cursor names it; the tag tells it from the cursors of other listings."""

    id: ContextTokenId


class SqlContextTokens:
    """Tokens, newest first. The secrets of added tokens are also appended to `added`."""

    def __init__(self, session: Session, added: list[TokenSecret]) -> None:
        self._session = session
        self._added = added

    async def resolve(self, secret: TokenSecret, now: datetime) -> Scope:
        """What the token opens. Raises `Unauthenticated` for one that opens nothing, without telling why."""
        return self._opened(await self._session.fetch_row(_BY_DIGEST, digest=secret.digest, now=now))

    async def hold(self, secret: TokenSecret, now: datetime) -> tuple[Scope, TurnState | None]:
        """The same, with how far its turn has come; a revoke of it waits until the unit ends."""
        row = await self._session.fetch_row(_HELD, digest=secret.digest, now=now)
        scope = self._opened(row and row[: -len(TURN_STATE.c)])
        return scope, None if row is None or scope.turn_id is None else TurnState(*row[-len(TURN_STATE.c) :])

    async def add(self, token: ContextToken, secret: TokenSecret) -> None:
        await self._session.defer(
            _ADD,
            id=token.id,
            digest=secret.digest,
            grants=" ".join(token.grants),
            conversation_id=token.conversation_id,
            turn_id=token.turn_id,
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
        )
        self._added.append(secret)

    async def get(self, id: ContextTokenId) -> ContextToken:
        row = await self._session.fetch_row(_ONE, key=id)
        if row is None:
            raise NotFound.of("context token")
        return _token(row)

    async def page(self, window: Window) -> Page[ContextToken]:
        last = window.decode_cursor(_Last)
        limit = window.limit + 1
        rows = await (
            self._session.fetch(_NEWEST, limit=limit)
            if last is None
            else self._session.fetch(_OLDER, limit=limit, before=last.id)
        )
        return window.to_page([_token(row) for row in rows], key=lambda token: _Last(token.id))

    async def revoke(self, id: ContextTokenId, now: datetime) -> None:
        if not await self._session.execute(_REVOKE, key=id, now=now):
            await self.get(id)

    async def revoke_for_turn(self, id: TurnId, now: datetime) -> None:
        await self._session.defer(_REVOKE_OF_TURN, turn=id, now=now)

    async def extend_for_turn(self, id: TurnId, until: datetime, now: datetime) -> None:
        await self._session.defer(_EXTEND_OF_TURN, turn=id, until=until, now=now)

    def _opened(self, row: Row | None) -> Scope:
        if row is None:
            raise Unauthenticated("This context token is unknown, expired or revoked: get a new one.")
        return _token(row).scope_for(self._session.scope.user_id)


def _token(row: Row) -> ContextToken:
    """Grants are OAuth's space-separated list (RFC 6749, 3.3); one that this release does not know grants nothing."""
    id, grants, conversation_id, turn_id, created_at, expires_at, revoked_at = row
    return ContextToken(
        id=id,
        grants=[_GRANTS[word] for word in grants.split() if word in _GRANTS],
        conversation_id=conversation_id,
        turn_id=turn_id,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
