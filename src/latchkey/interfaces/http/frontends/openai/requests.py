"""The bodies of OpenAI's API. Members that are not declared here are ignored."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from latchkey.domain.approval import NewDecision
from latchkey.domain.errors import Invalid
from latchkey.domain.turn import Metadata
from latchkey.domain.values import PLAIN, MessageText
from latchkey.interfaces.errors import convert_at
from latchkey.interfaces.http.frontends.decisions import decision_at

_APPROVAL = "mcp_approval_response"
_TEXT_PARTS = frozenset({"input_text", "text"})


class ConversationReference(Struct, frozen=True):
    """A conversation as an object with its id."""

    id: str


class ApprovalResponse(Struct, frozen=True):
    """The user's decision on a tool call, as an item of the input."""

    approval_request_id: str
    approve: bool
    reason: str | None = None

    def decision(self, path: str) -> NewDecision:
        """Return the decision of the item at this path. Raises `Invalid`."""
        return decision_at(path, is_approved=self.approve, reason=self.reason)


class NewResponse(Struct, frozen=True):
    """The body of `POST /responses`. Of the items in `input` only the last is read: a message of the user.

    If the last items are decisions on tool calls, all of those are read in its place. Earlier items, instructions and
    tools are ignored: the conversation that is stored here is the history.
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
    def approvals(self) -> list[tuple[str, ApprovalResponse]]:
        """The decisions with which the input ends, each with its path. Raises `Invalid`."""
        items = [] if isinstance(self.input, str) else self.input
        count = next((count for count, item in enumerate(reversed(items)) if not _is_approval(item)), len(items))
        last = list(enumerate(items))[len(items) - count :]
        paths = [(f"$.input[{index}]", item) for index, item in last]
        return [(path, convert_at(path, item, ApprovalResponse)) for path, item in paths]

    @property
    def text(self) -> str:
        """The text of the user's message. Raises `Invalid`."""
        if isinstance(self.input, str):
            return _message_text("$.input", self.input)
        if not self.input:
            raise Invalid.at("$.input", "Expected a text, or items that end with a message of the user")
        if len(self.input) > 1 and _is_approval(self.input[-2]):
            detail = "A decision must be the last item: send the message with the next request, after the response"
            raise Invalid.at(f"$.input[{len(self.input) - 2}]", detail)
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


def _is_approval(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == _APPROVAL


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
