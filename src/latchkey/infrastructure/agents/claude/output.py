"""What the Claude CLI says, line by line, as far as anybody listens."""

import json
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from latchkey.domain.errors import ModelBadResponse
from latchkey.domain.turn import Usage

SYNTHETIC = "<synthetic>"
"""The model of a message that the CLI wrote itself."""

_NEVER_MADE = "<tool_use_error>"
_UNREADABLE = "__unparsedToolInput"
"""In the place of arguments that are no JSON: the CLI makes no such call."""


class McpServer(Struct):
    name: str
    status: str


class SystemLine(Struct):
    """`init` tells what there is; `api_retry` that the model's server will be asked again."""

    subtype: str
    tools: list[str] = []
    mcp_servers: list[McpServer] = []
    error_status: int | None = None
    retry_delay_ms: float = 0


class Tokens(Struct):
    """Counted by the model's server. What went into its cache, or came from there, is input as well."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def updated(self, later: "Tokens | None") -> "Tokens":
        """A later count of the same message, which repeats what it likes."""
        counted = {} if later is None else {name: value for name, value in asdict(later).items() if value is not None}
        return replace(self, **counted)

    @property
    def usage(self) -> Usage:
        cached = (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)
        return Usage(1, (self.input_tokens or 0) + cached, self.output_tokens or 0)


class Block(Struct):
    """A part of a message, or a piece of one. `id`, `name` and `input` are of a call; `content` is its result."""

    type: str = ""
    text: str | None = None
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    is_error: bool | None = None
    content: Any = None

    @property
    def arguments(self) -> dict[str, Any] | None:
        """None for a call that is not going to be made."""
        return self.input if isinstance(self.input, dict) and _UNREADABLE not in self.input else None


class ModelMessage(Struct):
    """A message of the model's, or the beginning of one."""

    id: str
    model: str
    content: list[Block] = []
    usage: Tokens = msgspec.field(default_factory=Tokens)
    stop_reason: str | None = None


class UserMessage(Struct):
    content: list[Block] | str


class Delta(Block):
    stop_reason: str | None = None


class StreamEvent(Struct):
    """An event of the Messages API's stream. What has been counted by then is in `usage`."""

    type: str
    message: ModelMessage | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: Tokens | None = None


class StreamLine(Struct):
    event: StreamEvent


class AssistantLine(Struct):
    """A block of a message that is known from its stream, or of one that was not streamed."""

    message: ModelMessage
    error: str | None = None


class UserLine(Struct):
    """Results of tools, or what the CLI says in the person's name."""

    message: UserMessage
    tool_use_result: Any = None

    @property
    def results(self) -> list[Block]:
        content = self.message.content
        return [] if isinstance(content, str) else [block for block in content if block.type == "tool_result"]

    @property
    def is_lost(self) -> bool:
        """Whether a call got no answer that a tool gave: such a line has a bare text beside the message.

        So has a call that was never made, but that one is marked.
        """
        failed = [block for block in self.results if block.is_error]
        return isinstance(self.tool_use_result, str) and not all(_was_never_made(block) for block in failed)


class ResultLine(Struct):
    """An end: of a line that was only taken note of, or of the turn. `subtype` is `success` for most failures too."""

    is_error: bool
    subtype: str = ""
    terminal_reason: str | None = None
    api_error_status: int | None = None


def _was_never_made(call: Block) -> bool:
    return isinstance(call.content, str) and call.content.startswith(_NEVER_MADE)


Line = SystemLine | StreamLine | AssistantLine | UserLine | ResultLine

_KINDS: dict[str, type[Line]] = {
    "system": SystemLine,
    "stream_event": StreamLine,
    "assistant": AssistantLine,
    "user": UserLine,
    "result": ResultLine,
}


def read_line(text: bytes) -> Line | None:
    """The line, or None for one of a kind that nobody listens to. Raises `ModelBadResponse` for what is none."""
    try:
        said = json.loads(text)  # unlike msgspec, it takes half a surrogate pair, which a stream may carry
        kind = _KINDS.get(said["type"])
        return None if kind is None else msgspec.convert(said, kind)
    except (ValueError, TypeError, LookupError) as error:
        raise ModelBadResponse("The Claude CLI said something of an unknown shape: check its version.") from error
