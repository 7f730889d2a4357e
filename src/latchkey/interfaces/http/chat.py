"""A turn over HTTP: a message in, the answer and every tool call out."""

from litestar import post
from msgspec import Struct

from latchkey.application.running import TurnRunner
from latchkey.application.turns import Ended
from latchkey.domain import errors
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import Message, NewMessage
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId, Usage
from latchkey.interfaces.http.body import JsonBody
from latchkey.interfaces.http.request import ApiRequest


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
    errors.TooManyTurns,
    errors.AgentNotConfigured,
    errors.TurnInterrupted,
    errors.ToolsUnavailable,
    errors.RateLimited,
    errors.ModelUnavailable,
    errors.ModelBadResponse,
    errors.MaxSteps,
    errors.DeadlinePassed,
)


@post("/chat", status_code=200, tags=["chat"], failures=_FAILURES)
async def chat(request: ApiRequest, data: JsonBody[NewMessage]) -> ChatAnswer:
    """Say something, and wait for the answer of the agent.

    The turn goes on if the client leaves. If it fails, the message and the effects of its tool calls stay.
    """
    runner: TurnRunner = request.app.state.runner
    return _answer(await runner.chat(request.user, data))


def _answer(ended: Ended) -> ChatAnswer:
    turn, message = ended.turn, ended.message
    if message is None:
        raise LookupError(turn.id)  # a turn that has not failed has an answer
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
