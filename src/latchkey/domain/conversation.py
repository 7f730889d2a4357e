"""Conversations: each has messages and turns."""

from datetime import datetime
from typing import Annotated, Literal, NewType
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from latchkey.domain.values import PRINTABLE, Instant, Title

ConversationId = NewType("ConversationId", UUID)
ClientConversationId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=PRINTABLE,
        description="A name of the conversation that the client has chosen. It is unique for each user.",
        examples=["chat-7"],
    ),
]


Role = Literal["user", "assistant"]
LAST_MESSAGE_CHARS = 200


class LastMessage(Struct, frozen=True):
    """The newest message of a conversation. `content` is the first 200 characters of its text."""

    id: UUID
    role: Role
    content: str
    created_at: Instant


class Conversation(Struct, frozen=True):
    """`updated_at` is the time of the last activity. Listings show the newest activity first.

    `assistant` answers in it: the conversation keeps the one that it began with. It is null before the first message,
    and in conversations of early releases. `client_conversation_id` is the name that the client has chosen, if any.

    `last_message` and `running_turn_id` are null if there is none.
    """

    id: ConversationId
    title: str | None
    created_at: Instant
    updated_at: Instant
    assistant: str | None = None
    client_conversation_id: str | None = None
    last_message: LastMessage | None = None
    running_turn_id: UUID | None = None

    def with_changes(self, changes: "ConversationChanges", now: datetime) -> "Conversation":
        """Return the conversation with the changes; the same object if they change nothing."""
        if changes.title is UNSET or changes.title == self.title:
            return self
        return replace(self, title=changes.title, updated_at=now)


class NextMessage(Struct, frozen=True):
    """The number of a conversation's next message, the time zone that it remembers, and its assistant.

    `has_waiting_turn` says that a turn of the conversation waits for the user.
    """

    seq: int
    timezone: str | None
    assistant: str
    has_waiting_turn: bool


class NewConversation(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title | None = None


class ConversationChanges(Struct, frozen=True, forbid_unknown_fields=True):
    """A merge patch (RFC 7396): a member that is left out stays unchanged, null clears it."""

    title: Title | None | UnsetType = UNSET
