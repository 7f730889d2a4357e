"""Turns over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, get, post
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from latchkey.application.turns import finish as endings
from latchkey.application.turns import read as turns
from latchkey.application.turns.results import PublishedTurn
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.turn import TurnId
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.requests import ApiRequest

_MOST = 2**31 - 1

AfterQuery = Annotated[int, QueryParameter(ge=0, le=_MOST, description="Only the events that follow this one.")]
LastEventId = Annotated[
    int | None,
    HeaderParameter(
        name="Last-Event-ID", ge=0, le=_MOST, description="The same, from a client that goes on; it comes first."
    ),
]


class TurnController(Controller):
    path = "/turns"
    tags = ("turns",)

    @get("/{turn_id:uuid}")
    async def get_turn(self, request: ApiRequest, turn_id: FromPath[UUID]) -> PublishedTurn:
        """Show a turn with its tool calls."""
        return await request.look(turns.get_turn, TurnId(turn_id))

    @get("/{turn_id:uuid}/events", streams=True)
    async def follow_turn(
        self, request: ApiRequest, turn_id: FromPath[UUID], after: AfterQuery = 0, last_event_id: LastEventId = None
    ) -> Stream:
        """Follow a turn as it happens, or read what happened: server-sent events, up to the last one.

        A client that lost the connection goes on behind the last event that it has.
        """
        subscriptions: TurnSubscriptions = request.app.state.subscriptions
        subscriptions.check_limit(request.user)
        await request.look(turns.get_turn, TurnId(turn_id))
        start = after if last_event_id is None else last_event_id
        return event_stream(subscriptions.follow(request.user, TurnId(turn_id), start))

    @post("/{turn_id:uuid}/cancel", status_code=200)
    async def cancel_turn(self, request: ApiRequest, turn_id: FromPath[UUID]) -> PublishedTurn:
        """Stop a turn: once this has answered, none of its tool calls happens any more.

        A turn that has ended stays as it ended.
        """
        return await request.call(endings.cancel_turn, TurnId(turn_id))
