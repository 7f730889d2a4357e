"""A message: what the person said, or what the assistant answered."""

from typing import Annotated, Literal, NewType
from uuid import UUID

from msgspec import Meta, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.domain.values import Instant, MessageText

MessageId = NewType("MessageId", UUID)
Role = Literal["user", "assistant"]
Seq = Annotated[int, Meta(ge=1, description="Gapless from 1 within the conversation.")]


class Message(Struct, frozen=True, kw_only=True):
    """One message. `tool_calls` are those that the turn made before this answer; a user's message has none."""

    id: MessageId
    conversation_id: ConversationId
    turn_id: TurnId
    seq: Seq
    role: Role
    content: str
    tool_calls: list[ToolCall]
    created_at: Instant


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says. Without a conversation one is made; `artifact_generation` asks for a file."""

    message: MessageText
    conversation_id: ConversationId | None = None
    artifact_generation: bool = False


class PastTurn(Struct, frozen=True):
    """An earlier turn as a model is shown it. `answer` is None if the turn broke before it had one."""

    message: str
    tool_calls: list[ToolCall]
    answer: str | None
