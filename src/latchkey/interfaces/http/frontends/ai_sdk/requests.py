"""The requests that `useChat` sends: the chat's id, the user's message, and whether it is new, edited or sent again.

Earlier messages, tool results, system prompts and tools that a page posts are not read: the history is the service's.
"""

from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw, Struct, field

from latchkey.domain.conversation import ClientConversationId
from latchkey.domain.errors import Invalid
from latchkey.domain.message import NewMessage
from latchkey.domain.turn import Idempotency, TurnId
from latchkey.interfaces.errors import decode_at
from latchkey.interfaces.http.frontends.messages import new_message, options_of
from latchkey.interfaces.http.requests import ClientId

_MAX_KEY_CHARS = 255
_UNADDRESSABLE = {".", "..", "turn"}
"""Ids of chats that cannot stand in the paths of the other routes."""


class _Part(Struct, frozen=True):
    type: str
    text: str = ""


class _Role(Struct, frozen=True):
    role: Any = None


class UserMessage(Struct, frozen=True):
    """A message of the user as posted."""

    parts: list[_Part]
    id: ClientId | None = None

    @property
    def text(self) -> str:
        """The text parts joined. Raises `Invalid` for a message with a file."""
        if any(part.type == "file" for part in self.parts):
            raise Invalid("Only text can be sent; this message has a part of type `file`.")
        return "".join(part.text for part in self.parts if part.type == "text")


class ChatRequest(Struct, frozen=True):
    """The body of a request. All other members are ignored: pages and libraries add some of their own.

    `message` is an alternative to `messages`, of which only the last one by the user is read.
    """

    id: ClientConversationId
    message: Raw = Raw(b"null")
    messages: list[Raw] | None = None
    trigger: Any = None
    message_id: Any = field(default=None, name="messageId")
    artifact_generation: Any = False
    assistant: Any = None
    model: Any = None
    context: Any = None
    timezone: Any = None
    metadata: Any = None

    def check_id(self) -> None:
        """Check that the id of the chat can be a segment of a path. Raises `Invalid`."""
        if self.id in _UNADDRESSABLE or "/" in self.id:
            raise Invalid.at("$.id", "Expected an id without `/`, and not `.`, `..` or `turn`")

    @property
    def is_regeneration(self) -> bool:
        """Whether the user asks for another answer to the same message."""
        return bool(self.trigger == "regenerate-message")

    def user_message(self) -> UserMessage:
        """Return the message to send. Raises `Invalid` if there is none."""
        if bytes(self.message) != b"null":
            return decode_at("$.message", self.message, UserMessage)
        messages = self.messages or []
        for index in reversed(range(len(messages))):
            path = f"$.messages[{index}]"
            if decode_at(path, messages[index], _Role).role == "user":
                return decode_at(path, messages[index], UserMessage)
        raise Invalid.at("$.messages", "Expected at least one message with the role `user`")

    def new_message(self, text: str, replaces: TurnId | None, assistant: str | None) -> NewMessage:
        """Return the message for the service. It interrupts a running turn, whose stream its page no longer reads.

        `assistant` is chosen by a header; the body's own choice overrides it. Raises `Invalid`.
        """
        fields = {
            "message": text,
            "client_conversation_id": self.id,
            "replaces": replaces,
            "when_busy": "interrupt",
            "assistant": assistant,
        }
        return new_message(fields | options_of(msgspec.structs.asdict(self)))

    def idempotency(self, message: UserMessage, replaces: TurnId | None) -> Idempotency | None:
        """Return the key of the request: the same message in the same chat is one turn, unless it is regenerated.

        An edited message keeps its id, so the key contains the text. It also contains the replaced turn, because a
        user may change a message back to an earlier text.
        """
        if message.id is None:
            return None
        last = uuid4().hex if self.is_regeneration else sha256(message.text.encode()).hexdigest()[:16]
        key = f"ai-sdk:{self.id}:{message.id}:{last}" + (f":{replaces}" if replaces else "")
        digest = sha256(key.encode()).hexdigest()
        return Idempotency(key if len(key) <= _MAX_KEY_CHARS else f"ai-sdk:{digest}", digest)
