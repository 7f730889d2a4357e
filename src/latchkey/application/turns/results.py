"""A turn as it is published: with what its tools did, and what they saved."""

import msgspec
from msgspec import Struct

from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.values import Instant

SAVES_ARTIFACTS = "save_artifact"


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
            artifacts=saved_by(calls),
            started_at=turn.started_at,
            finished_at=turn.finished_at,
        )


def saved_by(calls: list[ToolCall]) -> list[ArtifactReference]:
    """The artifacts that these calls saved, in order, each at its last version: the ledger has what they answered."""
    saved = [
        msgspec.json.decode(call.result, type=ArtifactReference)
        for call in calls
        if call.name == SAVES_ARTIFACTS and not call.is_error
    ]
    return list({artifact.id: artifact for artifact in saved}.values())
