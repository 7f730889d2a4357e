"""A turn as it is published: with what its tools did, and what they saved."""

from msgspec import Struct

from latchkey.application.artifacts import created_artifacts
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.values import Instant


class PublishedTurn(Struct, frozen=True, kw_only=True):
    """A turn as it is published, with its tool calls in order, and the artifacts that they saved."""

    id: TurnId
    conversation_id: ConversationId
    status: TurnStatus
    agent: str
    error: TurnError | None
    usage: Usage
    tool_calls: list[ToolCall]
    artifacts: list[ArtifactReference]
    started_at: Instant
    finished_at: Instant | None

    @classmethod
    def of(cls, turn: Turn, calls: list[ToolCall]) -> "PublishedTurn":
        return cls(
            id=turn.id,
            conversation_id=turn.conversation_id,
            status=turn.status,
            agent=turn.agent,
            error=turn.error,
            usage=turn.usage,
            tool_calls=calls,
            artifacts=created_artifacts(calls),
            started_at=turn.started_at,
            finished_at=turn.finished_at,
        )
