"""Turns in SQL."""

from typing import Any

from msgspec import Struct
from sqlalchemy import bindparam, literal, select, update

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.domain.turn import Turn, TurnError, TurnId, Usage
from latchkey.infrastructure.database.session import Session, columns_but, insert_mine, mine
from latchkey.infrastructure.database.tables import turns
from latchkey.infrastructure.database.wires import Row

_ALL = select(*columns_but(turns)).where(mine(turns))
_KEY = turns.c.id == bindparam("key")
_ONE = _ALL.where(_KEY)
_ONE_FOR_UPDATE = _ONE.with_for_update(key_share=True)
_NEWEST = (
    _ALL.where(turns.c.conversation_id == bindparam("conversation"))
    .order_by(turns.c.id.desc())
    .limit(bindparam("limit"))
)
_OLDER = _NEWEST.where(turns.c.id < bindparam("before"))
_UNFINISHED = _ALL.where(turns.c.status == literal("running", literal_execute=True))
_ADD = insert_mine(turns)
_REPLACE = update(turns).where(mine(turns), _KEY)


class _Last(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="turns"):
    """The last item of a page, as its cursor names it; the tag tells it from the cursors of other listings."""

    id: TurnId


class SqlTurns:
    """Newest first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, turn: Turn) -> None:
        await self._session.run(_ADD, **_values(turn))

    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn:
        row = await self._session.row(_ONE_FOR_UPDATE if for_update else _ONE, key=id)
        turn = None if row is None else _turn(row)
        if turn is None or not self._session.scope.reaches(turn.conversation_id):
            raise NotFound.of("turn")
        return turn

    async def page(self, conversation_id: ConversationId, window: Window) -> Page[Turn]:
        if not self._session.scope.reaches(conversation_id):
            raise NotFound.of("conversation")
        last = window.after(_Last)
        asked = {"conversation": conversation_id, "limit": window.limit + 1}
        rows = await (
            self._session.rows(_NEWEST, **asked)
            if last is None
            else self._session.rows(_OLDER, before=last.id, **asked)
        )
        return window.page([_turn(row) for row in rows], key=lambda turn: _Last(turn.id))

    async def unfinished(self) -> list[Turn]:
        return [_turn(row) for row in await self._session.rows(_UNFINISHED)]

    async def replace(self, turn: Turn) -> None:
        inside = self._session.scope.reaches(turn.conversation_id)
        if not inside or not await self._session.run(_REPLACE, key=turn.id, **_values(turn)):
            raise NotFound.of("turn")


def _turn(row: Row) -> Turn:
    id, conversation_id, status, agent, code, detail, requests, read, written, *times = row
    started_at, finished_at, lease_until = times
    return Turn(
        id=id,
        conversation_id=conversation_id,
        status=status,
        agent=agent,
        error=TurnError(code, detail) if code else None,
        usage=Usage(requests, read, written),
        started_at=started_at,
        finished_at=finished_at,
        lease_until=lease_until,
    )


def _values(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        "conversation_id": turn.conversation_id,
        "status": turn.status,
        "agent": turn.agent,
        "error_code": turn.error and turn.error.code,
        "error_detail": turn.error and turn.error.detail,
        "requests": turn.usage.requests,
        "input_tokens": turn.usage.input_tokens,
        "output_tokens": turn.usage.output_tokens,
        "started_at": turn.started_at,
        "finished_at": turn.finished_at,
        "lease_until": turn.lease_until,
    }
