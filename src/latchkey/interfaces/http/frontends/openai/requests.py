"""The bodies of OpenAI's API. Members that are not declared here are ignored."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from latchkey.domain.errors import Invalid
from latchkey.domain.turn import Metadata
from latchkey.domain.values import PLAIN, MessageText
from latchkey.interfaces.errors import convert_at

_TEXT_PARTS = frozenset({"input_text", "text"})


class ConversationReference(Struct, frozen=True):
    """A conversation as an object with its id."""

    id: str


class NewResponse(Struct, frozen=True):
    """The body of `POST /responses`. Of the items in `input` only the last is read: a message of the user.

    Earlier items, instructions and tools are ignored: the conversation that is stored here is the history.
    """

    input: str | list[Any]
    model: str | None = None
    conversation: str | ConversationReference | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    background: bool | None = None
    metadata: Metadata | None = None

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation, with its prefix."""
        reference = self.conversation
        return reference.id if isinstance(reference, ConversationReference) else reference

    @property
    def text(self) -> str:
        """The text of the user's message. Raises `Invalid`."""
        if isinstance(self.input, str):
            return _message_text("$.input", self.input)
        if not self.input:
            raise Invalid.at("$.input", "Expected a text, or items that end with a message of the user")
        path = f"$.input[{len(self.input) - 1}]"
        return _message_text(path, _text_of(path, self.input[-1]))


class ConversationMetadata(Struct, frozen=True):
    """The metadata of a conversation that is stored: the title. An empty title removes the stored one."""

    title: Annotated[str, Meta(max_length=200, pattern=PLAIN)] | None | UnsetType = UNSET


class ConversationBody(Struct, frozen=True):
    """The body of `POST /conversations` and `POST /conversations/{id}`."""

    metadata: ConversationMetadata | None = None
    items: list[Any] | None = None

    @property
    def title(self) -> str | None | UnsetType:
        """The title, UNSET if the body has none. Raises `Invalid` for items, which cannot be added."""
        if self.items:
            raise Invalid.at("$.items", "Items cannot be added to a conversation: send a message with POST /responses")
        title = self.metadata.title if self.metadata else UNSET
        return (title if title.strip() else None) if isinstance(title, str) else title


class _Part(Struct, frozen=True):
    type: str
    text: str = ""


class _UserMessage(Struct, frozen=True):
    role: str
    content: str | list[_Part]
    type: str = "message"


def _text_of(path: str, item: Any) -> str:
    message = convert_at(path, item, _UserMessage)
    if message.type != "message" or message.role != "user":
        raise Invalid.at(path, "The last item must be a message with the role `user`")
    if isinstance(message.content, str):
        return message.content
    for index, part in enumerate(message.content):
        if part.type not in _TEXT_PARTS:
            detail = f"Only text can be sent; this message has a part of type `{part.type[:100]}`"
            raise Invalid.at(f"{path}.content[{index}]", detail)
    return "\n".join(part.text for part in message.content)


def _message_text(path: str, text: str) -> str:
    return convert_at(path, text, MessageText)
