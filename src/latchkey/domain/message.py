"""Messages of a conversation, by the user and by the assistant."""

from typing import Annotated, Literal, NewType
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.domain.values import Instant, MessageText, TimeZoneName

MessageId = NewType("MessageId", UUID)
Role = Literal["user", "assistant"]
Seq = Annotated[int, Meta(ge=1, description="Gapless from 1 within the conversation.")]


class Message(Struct, frozen=True, kw_only=True):
    """One message. `tool_calls` are the tool calls of the turn that led to the assistant's message."""

    id: MessageId
    conversation_id: ConversationId
    turn_id: TurnId
    seq: Seq
    role: Role
    content: str
    tool_calls: list[ToolCall]
    created_at: Instant

    @property
    def size(self) -> int:
        """The characters of the text and the bytes of the tool calls."""
        return len(self.content) + sum(call.size for call in self.tool_calls)


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's message. Without `conversation_id` it starts a conversation. `artifact_generation` asks for a file.

    `timezone` is where the user is: the assistant is told the date and time there. It is remembered with the
    conversation. Without one, the claim `zoneinfo` of the user's token applies, else UTC.
    """

    message: MessageText
    conversation_id: ConversationId | None = None
    artifact_generation: bool = False
    # UNSET and not null by default, so that a message without it has the same fingerprint as in earlier releases.
    timezone: TimeZoneName | None | UnsetType = UNSET


class PastTurn(Struct, frozen=True):
    """An earlier turn of the conversation, for the model. `answer` is None if the turn ended without one."""

    message: str
    tool_calls: list[ToolCall]
    answer: str | None

    @property
    def characters(self) -> int:
        """The size of the turn: characters of its texts and bytes of its tool calls."""
        calls = sum(call.size for call in self.tool_calls)
        return len(self.message) + len(self.answer or "") + calls
