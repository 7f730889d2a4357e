"""Turns over HTTP."""

from uuid import UUID

from litestar import Controller, get
from litestar.params import FromPath

from latchkey.application import turns
from latchkey.domain.published_turn import PublishedTurn
from latchkey.domain.turn import TurnId
from latchkey.interfaces.http.request import ApiRequest


class TurnController(Controller):
    path = "/turns"
    tags = ("turns",)

    @get("/{turn_id:uuid}")
    async def get_turn(self, request: ApiRequest, turn_id: FromPath[UUID]) -> PublishedTurn:
        """Show a turn with its tool calls."""
        return await request.call(turns.get_turn, TurnId(turn_id))
