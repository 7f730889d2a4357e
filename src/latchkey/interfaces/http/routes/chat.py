"""A message to the assistant over HTTP, answered with the whole turn or with its events."""

from typing import Literal

from litestar import Response, post
from litestar.di import NamedDependency
from msgspec import Raw, Struct

from latchkey.application.turns.finish import TurnResult
from latchkey.application.turns.runner import TurnHandle, TurnRunner
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain import errors
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import Message, NewMessage
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import AgentName, ClientRequest, TurnId, Usage
from latchkey.domain.values import Instant
from latchkey.interfaces.http.event_stream import MEDIA_TYPE, event_stream
from latchkey.interfaces.http.problems import problem_response
from latchkey.interfaces.http.requests import REPLAYED, ApiRequest, IdempotencyKey, JsonBody, idempotency_of


class ChatAnswer(Struct, frozen=True):
    """A completed turn. `message` is the stored message of the assistant; `response` is its text."""

    conversation_id: ConversationId
    turn_id: TurnId
    response: str
    message: Message
    tool_calls: list[ToolCall]
    artifacts: list[ArtifactReference]
    usage: Usage
    agent: AgentName


class OpenApproval(Struct, frozen=True):
    """A tool call that waits for the user's decision."""

    id: ToolCallId
    name: str
    arguments: Raw
    expires_at: Instant


class WaitingAnswer(Struct, frozen=True):
    """A turn that waits for the user's decisions. It goes on by itself when all are made."""

    conversation_id: ConversationId
    turn_id: TurnId
    status: Literal["waiting"]
    approvals: list[OpenApproval]
    tool_calls: list[ToolCall]
    usage: Usage
    agent: AgentName


_FAILURES: tuple[type[errors.Failure], ...] = (
    errors.NotFound,
    errors.TurnInProgress,
    errors.TurnCancelled,
    errors.IdempotencyMismatch,
    errors.TooManyTurns,
    errors.AgentNotConfigured,
    errors.Draining,
    errors.TurnInterrupted,
    errors.ToolsUnavailable,
    errors.RateLimited,
    errors.ModelUnavailable,
    errors.ModelBadResponse,
    errors.ContextTooLong,
    errors.MaxSteps,
    errors.DeadlinePassed,
)


@post(
    "/chat",
    status_code=200,
    tags=["chat"],
    failures=_FAILURES,
    streams=True,
    accepted=WaitingAnswer,
    response_headers=[REPLAYED],
)
async def chat(
    request: ApiRequest,
    runner: NamedDependency[TurnRunner],
    subscriptions: NamedDependency[TurnSubscriptions],
    data: JsonBody[NewMessage],
    idempotency_key: IdempotencyKey = None,
) -> Response[ChatAnswer]:
    """Send a message to the assistant, and wait for its answer or stream the events of the turn.

    The turn continues if the client disconnects. If it fails, the message and the effects of its tool calls are kept.
    With `Accept: text/event-stream` the response is a stream of the turn's events, which can be read again at
    `turns/{turn_id}/events`. A retry with the same `Idempotency-Key` and body while the turn is running gets the events
    of that turn from the first one; without a stream it gets 409 with `same_request`. 202 means that the turn waits for
    the user's decision on tool calls.
    """
    idempotency = None if idempotency_key is None else idempotency_of(idempotency_key, data)
    client_request = ClientRequest(request.request_id, idempotency)
    if MEDIA_TYPE in request.headers.get("accept", "").lower():
        # Reserved before the turn starts: a refused request must not have effects.
        with subscriptions.reserve(request.user) as subscription:
            turn = await runner.start_or_join(request.user, data, client_request)
            return event_stream(subscription.follow(turn.turn_id, 0), request.user.user_id, _replay_headers(turn))  # type: ignore[return-value]  # the annotation is what is published
    turn = await runner.start(request.user, data, client_request)
    headers = _replay_headers(turn)
    result = await runner.wait(request.user, turn)
    if turn.original_request_id and result.failure:
        # A replayed failure has the id of the request that failed, as it had the first time.
        return problem_response(request, result.failure, turn.original_request_id, headers)  # type: ignore[return-value]  # the annotation is what is published
    if result.turn.status == "waiting":
        return Response(_waiting_answer(result), headers=headers, status_code=202)  # type: ignore[arg-type]  # the other body is published as `accepted`
    return Response(_chat_answer(result), headers=headers)


def _replay_headers(turn: TurnHandle) -> dict[str, str]:
    return {} if turn.original_request_id is None else {REPLAYED.name: "true"}


def _waiting_answer(result: TurnResult) -> WaitingAnswer:
    turn = result.turn
    approvals = [OpenApproval(each.id, each.name, each.arguments, each.expires_at) for each in result.approvals]
    return WaitingAnswer(turn.conversation_id, turn.id, "waiting", approvals, turn.tool_calls, turn.usage, turn.agent)


def _chat_answer(result: TurnResult) -> ChatAnswer:
    """Raises the failure of a turn that ended without an answer."""
    if result.failure:
        raise result.failure
    turn, message = result.turn, result.message
    if message is None:
        raise LookupError(turn.id)  # a completed turn always has a message
    return ChatAnswer(
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        response=message.content,
        message=message,
        tool_calls=turn.tool_calls,
        artifacts=turn.artifacts,
        usage=turn.usage,
        agent=turn.agent,
    )
