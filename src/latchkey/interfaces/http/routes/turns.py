"""Turns over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import finish, read, undo
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import PublishedTurn
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.turn import TurnId
from latchkey.domain.undo import NotUndoable
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.requests import ApiRequest

_MAX_SEQ = 2**31 - 1

AfterQuery = Annotated[int, QueryParameter(ge=0, le=_MAX_SEQ, description="Only events after the one with this id.")]
LastEventId = Annotated[
    int | None,
    HeaderParameter(
        name="Last-Event-ID",
        ge=0,
        le=_MAX_SEQ,
        description="The id of the last event that the client received before it reconnected. Overrides `after`.",
    ),
]


class TurnController(Controller):
    path = "/turns"
    tags = ("turns",)

    @get("/{turn_id:uuid}")
    async def get_turn(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], turn_id: FromPath[UUID]
    ) -> PublishedTurn:
        """Get a turn with its tool calls."""
        return await with_expiry(dispatcher, request.user, read.get_turn, TurnId(turn_id))

    @get("/{turn_id:uuid}/events", streams=True)
    async def follow_turn(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        turn_id: FromPath[UUID],
        *,
        after: AfterQuery = 0,
        last_event_id: LastEventId = None,
    ) -> Stream:
        """Stream the events of a turn as server-sent events: those that are stored, then new ones, up to the last.

        After a lost connection, the client resumes with `Last-Event-ID`.
        """
        start = after if last_event_id is None else last_event_id
        with subscriptions.reserve(request.user) as reservation:
            await with_expiry(dispatcher, request.user, read.check_turn, TurnId(turn_id))
            return event_stream(reservation.follow(TurnId(turn_id), start), request.user.user_id)

    @post("/{turn_id:uuid}/cancel", status_code=200, essential=True, example={"status": "cancelled"})
    async def cancel_turn(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], turn_id: FromPath[UUID]
    ) -> PublishedTurn:
        """Cancel a turn. After the response, none of its tool calls takes effect.

        A turn that has already ended keeps its status.
        """
        return await dispatcher.call(request.user, finish.cancel_turn, TurnId(turn_id))

    @post(
        "/{turn_id:uuid}/undo",
        status_code=200,
        example={"can_undo": False, "undone_at": "2026-12-01T08:01:00Z"},
        failures=[NotUndoable],
    )
    async def undo_turn(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], turn_id: FromPath[UUID]
    ) -> PublishedTurn:
        """Undo what the tools of a turn have changed, newest first, in one transaction.

        If an entry has been changed since, or a tool may have changed something in another service, nothing is undone:
        the response is 409, and `conflicts` lists what prevents it. A turn that was undone stays as it is.
        """
        return await with_expiry(dispatcher, request.user, undo.undo_turn, TurnId(turn_id))
