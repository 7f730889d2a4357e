"""The body of an AG-UI run. Only the last message, the ids and a few options are read; all else is ignored.

Earlier messages, system prompts, tool results and the state are not read: the stored conversation is the history.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from latchkey.domain.conversation import ClientConversationId
from latchkey.domain.errors import Invalid
from latchkey.domain.message import NewMessage
from latchkey.domain.turn import Idempotency
from latchkey.interfaces.errors import invalid, invalid_at
from latchkey.interfaces.http.requests import ClientId

_OPTIONS = ("assistant", "model", "context", "timezone", "metadata", "artifact_generation")
"""The fields of a message that an app can set in `forwardedProps`."""
_FIELD_TYPES: Mapping[str, Any] = {field.name: field.type for field in msgspec.structs.fields(NewMessage)}
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
    protocol_version: Raw | UnsetType = UNSET
    forwarded_props: Raw = Raw(b"null")

    @property
    def knows_cancelled(self) -> bool:
        """Whether the client knows the outcome of a cancelled run: clients before 1.0 send no version."""
        return self.protocol_version is not UNSET

    def user_message(self) -> UserMessage | None:
        """Return the last message if it is the user's. Raises `Invalid` if it has no text, or more than text."""
        if not self.messages or _decode(_Role, self.messages[-1], self._last).role != "user":
            return None
        message = _decode(_UserMessage, self.messages[-1], self._last)
        return UserMessage(message.id, message.text(self._last))

    def new_message(self, message: UserMessage, assistant: str | None) -> NewMessage:
        """Return the message with the options of `forwardedProps` that are well-formed.

        `assistant` is the one that a header names. Raises `Invalid` for a text that is too long.
        """
        fields = {
            "message": message.text,
            "client_conversation_id": self.thread_id,
            "when_busy": "interrupt",
            **({"assistant": assistant} if assistant else {}),
            **self._options(),
        }
        try:
            return msgspec.convert(fields, NewMessage)
        except msgspec.ValidationError as error:
            raise invalid(error) from error

    def _options(self) -> dict[str, Any]:
        properties = msgspec.json.decode(self.forwarded_props)
        if not isinstance(properties, dict):
            return {}
        return {name: properties[name] for name in _OPTIONS if _is_well_formed(name, properties.get(name))}

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


def _decode(type_: type[Any], raw: Raw, path: str) -> Any:
    """Decode a part of the body. Raises `Invalid` with its path in the body."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError as error:
        raise invalid_at(path, error) from error


def _is_well_formed(name: str, value: Any) -> bool:
    try:
        msgspec.convert(value, _FIELD_TYPES[name])
    except msgspec.ValidationError:
        return False
    return value is not None
