"""Open questions about tool calls, and the user's decisions, over HTTP."""

from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import approvals
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.approval import Approval, DecidedApproval, NewDecision
from latchkey.domain.errors import Conflict, Draining
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.interfaces.http.event_stream import MEDIA_TYPE, event_stream
from latchkey.interfaces.http.requests import ApiRequest, CursorQuery, JsonBody, LimitQuery


class ApprovalController(Controller):
    path = ""
    tags = ("approvals",)

    @get("/approvals")
    async def list_approvals(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Approval]:
        """List the tool calls that wait for the user's decision, oldest first."""
        return await dispatcher.call(request.user, approvals.list_approvals, Window(limit, cursor))

    @post(
        "/turns/{turn_id:uuid}/approvals/{call_id:uuid}",
        status_code=200,
        essential=True,
        streams=True,
        failures=[Conflict, Draining],
    )
    async def decide_approval(
        self,
        request: ApiRequest,
        runner: NamedDependency[TurnRunner],
        subscriptions: NamedDependency[TurnSubscriptions],
        turn_id: FromPath[UUID],
        call_id: FromPath[UUID],
        data: JsonBody[NewDecision],
    ) -> Response[DecidedApproval]:
        """Approve or decline a tool call, once. An approved call is made with exactly the arguments that were shown.

        The turn goes on by itself when all its calls are decided. Repeating the decision answers the same; the opposite
        one is refused, and so is any after the turn has ended or the question has expired. With
        `Accept: text/event-stream` the response is the rest of the turn's events, from the decision on.
        """
        owner, turn, call = request.user, TurnId(turn_id), ToolCallId(call_id)
        if MEDIA_TYPE not in request.headers.get("accept", "").lower():
            return Response(await runner.decide(owner, turn, call, data))
        with subscriptions.reserve(owner) as subscription:
            await runner.decide(owner, turn, call, data)
            seq = await runner.find_decision_event(owner, turn, call)
            return event_stream(subscription.follow(turn, seq - 1), owner.user_id)  # type: ignore[return-value]  # the annotation is what is published
