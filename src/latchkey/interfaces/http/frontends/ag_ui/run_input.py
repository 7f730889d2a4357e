"""The body of an AG-UI run. Only the last message, the ids and a few options are read; all else is ignored.

Earlier messages, system prompts, tool results and the state are not read: the stored conversation is the history.
"""

from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from latchkey.domain.conversation import ClientConversationId
from latchkey.domain.errors import Invalid
from latchkey.domain.message import NewMessage
from latchkey.domain.turn import Idempotency
from latchkey.interfaces.errors import decode_at
from latchkey.interfaces.http.frontends.messages import new_message, options_of
from latchkey.interfaces.http.requests import ClientId

MAX_ANSWERS = 100

_encode = msgspec.json.Encoder(order="deterministic").encode


class UserMessage(Struct, frozen=True):
    """The message to be sent: the client's id of it, and its text."""

    id: str | None
    text: str


class RunAgentInput(Struct, frozen=True, rename="camel"):
    """The members of the body that are read."""

    thread_id: ClientConversationId
    run_id: ClientId
    messages: list[Raw] | None = None
    resume: Annotated[list[Raw], Meta(max_length=MAX_ANSWERS)] | None = None
    protocol_version: Raw | UnsetType = UNSET
    forwarded_props: Raw = Raw(b"null")

    @property
    def knows_cancelled(self) -> bool:
        """Whether the client knows the outcome of a cancelled run: clients before 1.0 send no version."""
        return self.protocol_version is not UNSET

    def user_message(self) -> UserMessage | None:
        """Return the last message if it is the user's. Raises `Invalid` if it has no text, or more than text."""
        if not self.messages or decode_at(self._last, self.messages[-1], _Role).role != "user":
            return None
        message = decode_at(self._last, self.messages[-1], _UserMessage)
        return UserMessage(message.id, message.text(self._last))

    def new_message(self, message: UserMessage, assistant: str | None) -> NewMessage:
        """Return the message with the options of `forwardedProps` that are well-formed.

        `assistant` is the one that a header names. Raises `Invalid` for a text that is too long.
        """
        fields = {"message": message.text, "client_conversation_id": self.thread_id, "when_busy": "interrupt"}
        return new_message({**fields, "assistant": assistant or None, **self._options()})

    def _options(self) -> dict[str, Any]:
        properties = msgspec.json.decode(self.forwarded_props)
        if not isinstance(properties, dict):
            return {}
        return options_of(properties)

    @property
    def _last(self) -> str:
        return f"$.messages[{len(self.messages or [1]) - 1}]"


def idempotency_of(run_id: str, message: UserMessage, new_message: NewMessage) -> Idempotency:
    """Return the key of a message in a run, so that a repeated request gets the stream of the same turn."""
    return Idempotency(f"ag-ui:{run_id}:{message.id or ''}", sha256(_encode(new_message)).hexdigest())


class _Role(Struct, frozen=True):
    role: str


class _Part(Struct, frozen=True):
    type: str
    text: str = ""


class _UserMessage(Struct, frozen=True):
    role: Literal["user"]
    id: ClientId | None = None
    content: str | list[_Part] | None = None

    def text(self, path: str) -> str:
        """Return the text. Raises `Invalid` if there is none, or more than text."""
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text":
                    detail = f'Only text can be sent; this message has a part of type "{part.type[:100]}".'
                    raise Invalid(detail, errors=[{"path": f"{path}.content", "message": detail}])
            text = "".join(part.text for part in self.content)
        else:
            text = self.content or ""
        if not text.strip():
            raise Invalid.at(f"{path}.content", "Expected text with at least one visible character")
        return text
