"""A turn over HTTP: a message in, the answer and every tool call out, whole or as they happen."""

from litestar import Response, post
from msgspec import Struct

from latchkey.application.turns.finish import TurnResult
from latchkey.application.turns.runner import TurnHandle, TurnRunner
from latchkey.domain import errors
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import Message, NewMessage
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId, Usage
from latchkey.interfaces.http.event_stream import event_stream, wants_events
from latchkey.interfaces.http.idempotency import REPLAYED, IdempotencyKey, idempotency_of
from latchkey.interfaces.http.problems import problem_response
from latchkey.interfaces.http.requests import ApiRequest, JsonBody
from latchkey.interfaces.http.responses import JsonResponse


class ChatAnswer(Struct, frozen=True):
    """A completed turn. `message` is the assistant's message as it is stored; `response` is its text."""

    conversation_id: ConversationId
    turn_id: TurnId
    response: str
    message: Message
    tool_calls: list[ToolCall]
    artifacts: list[ArtifactReference]
    usage: Usage
    agent: str


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
    errors.MaxSteps,
    errors.DeadlinePassed,
)


@post(
    "/chat",
    status_code=200,
    tags=["chat"],
    failures=_FAILURES,
    streams=True,
    response_headers=[REPLAYED],
)
async def chat(
    request: ApiRequest, data: JsonBody[NewMessage], idempotency_key: IdempotencyKey = None
) -> Response[ChatAnswer]:
    """Say something, and wait for the answer of the agent, or follow the turn as it happens.

    The turn goes on if the client leaves. If it fails, the message and the effects of its tool calls stay.
    With `Accept: text/event-stream` the turn is answered as its events; they can be followed again at
    `turns/{turn_id}/events`.
    """
    runner: TurnRunner = request.app.state.runner
    begun = await runner.begin(request.user, data, idempotency_of(idempotency_key, data, request.id))
    if wants_events(request.headers.get("accept")):
        subscriptions = request.app.state.subscriptions
        return event_stream(subscriptions.follow(request.user, begun.turn_id, 0), _headers(begun))  # type: ignore[return-value]
    ended = await runner.ended(request.user, begun)
    if begun.first and ended.failure:
        return problem_response(ended.failure, begun.first.request_id, _headers(begun))  # type: ignore[return-value]
    return JsonResponse(_answer(ended), headers=_headers(begun))


def _headers(begun: TurnHandle) -> dict[str, str]:
    return {} if begun.first is None else {REPLAYED.name: "true"}


def _answer(ended: TurnResult) -> ChatAnswer:
    """Raises the failure of a turn that has no answer."""
    if ended.failure:
        raise ended.failure
    turn, message = ended.turn, ended.message
    if message is None:
        raise LookupError(turn.id)  # a turn that is completed has an answer
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
