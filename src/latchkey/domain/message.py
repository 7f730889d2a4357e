"""Messages of a conversation, by the user and by the assistant."""

from typing import Annotated, Any, Literal, NewType
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from latchkey.domain.assistant import AssistantName, ModelName
from latchkey.domain.conversation import ClientConversationId, ConversationId, Role
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Metadata, TurnId
from latchkey.domain.values import Instant, MessageText, TimeZoneName

MessageId = NewType("MessageId", UUID)
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


MAX_CONTEXT_BYTES = 8 * 1024
PageContext = Annotated[
    dict[str, Any],
    Meta(
        description="What the user is looking at: page, cart, locale. At most 8 KiB of JSON.",
        examples=[{"page": "/bicycles/42"}],
    ),
]


WhenBusy = Annotated[
    Literal["reject", "interrupt"],
    Meta(
        description="What to do if the conversation has a running turn: `reject` refuses the message with"
        " `turn-in-progress`, `interrupt` cancels the running turn. Default: `reject`."
    ),
]


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's message. Without `conversation_id` it starts a conversation. `artifact_generation` asks for a file.

    `timezone` is where the user is: the assistant is told the date and time there. It is remembered with the
    conversation. Without one, the claim `zoneinfo` of the user's token applies, else UTC.

    `assistant` answers; a conversation keeps the one that it began with. `model` is one of those that the assistant
    allows. The model is shown `context` in this turn only; it is not stored. `metadata` is stored with the turn.

    `client_conversation_id` names the conversation instead of `conversation_id`: the first message with a name starts
    the conversation. The id of a conversation is a name of it, too. `replaces` is a turn of the conversation: the new
    turn replaces it and all turns after it, which are no longer part of the history.
    """

    message: MessageText
    conversation_id: ConversationId | None = None
    artifact_generation: bool = False
    # UNSET and not null by default, so that a message without them has the same fingerprint as in earlier releases.
    timezone: TimeZoneName | None | UnsetType = UNSET
    assistant: AssistantName | None | UnsetType = UNSET
    model: ModelName | None | UnsetType = UNSET
    context: PageContext | None | UnsetType = UNSET
    metadata: Metadata | None | UnsetType = UNSET
    client_conversation_id: ClientConversationId | None | UnsetType = UNSET
    replaces: TurnId | None | UnsetType = UNSET
    when_busy: WhenBusy | UnsetType = UNSET


UNDONE = "[The user has undone what the tool calls of this turn changed: everything is as it was before them.]"
"""What the model reads in the history after the answer of a turn that was undone."""


class PastTurn(Struct, frozen=True):
    """An earlier turn of the conversation, for the model. `answer` is None if the turn ended without one.

    The answer of a turn whose effects were undone ends with `UNDONE`.
    """

    message: str
    tool_calls: list[ToolCall]
    answer: str | None

    @property
    def characters(self) -> int:
        """The size of the turn: characters of its texts and bytes of its tool calls."""
        calls = sum(call.size for call in self.tool_calls)
        return len(self.message) + len(self.answer or "") + calls
