"""Turns over HTTP."""

from uuid import UUID

from litestar import Controller, get

from latchkey.application import turns
from latchkey.domain.turn import PublishedTurn, TurnId
from latchkey.interfaces.http.request import ApiRequest


class TurnController(Controller):
    path = "/turns"
    tags = ["turns"]

    @get("/{turn_id:uuid}")
    async def show(self, request: ApiRequest, turn_id: UUID) -> PublishedTurn:
        return await request.call(turns.get_turn, TurnId(turn_id))
