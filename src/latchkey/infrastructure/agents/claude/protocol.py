"""The stream-json protocol of the Claude CLI: the JSON lines written to its stdin and read from its stdout.

The CLI confirms a user line that has `shouldQuery: false` with an empty result. The lines after it must wait for that
result: the CLI takes assistant lines at once, and would put them first. `client_composed` makes the CLI leave a text as
it is: the CLI reads no file that the text mentions, and runs no command in it.
"""

import json
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict, replace

from latchkey.domain.agent import AgentRun
from latchkey.domain.errors import ApprovalRequired, ModelBadResponse
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.claude.cli import cli_tool_name
from latchkey.infrastructure.agents.toolset import result_text

InputLine = dict[str, Any]

CONTINUE = "[The service continues this turn after an interruption. Go on from here, and do not repeat what is done.]"
"""The CLI asks the model only after a message of the user."""


def input_batches(agent_run: AgentRun) -> Iterator[list[InputLine]]:
    """The conversation, in batches that the CLI confirms with a result each. The last batch ends with the new message.

    The first batch is an empty message: it is not part of the conversation, and makes the CLI report its tools.
    """
    batch: list[InputLine] = []
    for line in _input_lines(agent_run):
        batch.append(line)
        if line["type"] == "user":
            yield batch
            batch = []


def _input_lines(agent_run: AgentRun) -> Iterator[InputLine]:
    yield _user_line([], shouldQuery=False)
    for turn in agent_run.history:
        yield from _turn_lines(turn)
    if not agent_run.steps:
        yield _user_line(agent_run.message)
        return
    yield _user_line(agent_run.message, shouldQuery=False)
    for step in agent_run.steps:
        if step.text.strip():  # the model's server rejects blank texts
            yield _assistant_line({"type": "text", "text": step.text})
        for call in step.tool_calls:
            yield from _call_lines(call)
    yield _user_line(CONTINUE)


def newest_half(history: list[PastTurn]) -> list[PastTurn]:
    """Return the newest turns that together have at most half of the history's size."""
    sizes = [len(json.dumps(list(_turn_lines(turn)))) for turn in history]
    totals = accumulate(reversed(sizes))
    count = sum(total <= sum(sizes) / 2 for total in totals)
    return history[len(history) - count :]


def _turn_lines(turn: PastTurn) -> Iterator[InputLine]:
    yield _user_line(turn.message, shouldQuery=False)
    for call in turn.tool_calls:
        yield from _call_lines(call)
    if turn.answer is not None and turn.answer.strip():  # the model's server rejects blank texts
        yield _assistant_line({"type": "text", "text": turn.answer})


def _call_lines(call: ToolCall) -> Iterator[InputLine]:
    call_id = str(call.id)
    request = {
        "type": "tool_use",
        "id": call_id,
        "name": cli_tool_name(call.name),
        "input": _arguments_object(call.arguments),
    }
    result = {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": result_text(call),
        "is_error": call.is_error,
    }
    yield _assistant_line(request)
    yield _user_line([result], shouldQuery=False)


def _user_line(content: str | list[InputLine], **options: bool) -> InputLine:
    return {"type": "user", "message": {"role": "user", "content": content}, "client_composed": True, **options}


def _assistant_line(block: InputLine) -> InputLine:
    return {"type": "assistant", "message": {"role": "assistant", "content": [block]}}


def _arguments_object(arguments: Raw) -> InputLine:
    """The model's server accepts only objects."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


SYNTHETIC = "<synthetic>"
"""The model of a message that the CLI wrote itself."""

_TOOL_USE_ERROR = "<tool_use_error>"
_UNPARSED_INPUT = "__unparsedToolInput"
"""The CLI puts this key into arguments that are not JSON. It does not make such a call."""


class McpServer(Struct):
    name: str
    status: str


class SystemLine(Struct):
    """`init` lists tools and servers. `api_retry` says that the CLI will repeat a request to the model's server."""

    subtype: str
    tools: list[str] = []
    mcp_servers: list[McpServer] = []
    error_status: int | None = None
    retry_delay_ms: float = 0


class Tokens(Struct):
    """As counted by the model's server. Tokens written to its cache or read from it are input tokens too."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def updated(self, later: "Tokens | None") -> "Tokens":
        """Merge a later count of the same message, which may repeat only some of the numbers."""
        counts = {} if later is None else {name: value for name, value in asdict(later).items() if value is not None}
        return replace(self, **counts)

    @property
    def usage(self) -> Usage:
        cached = (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)
        return Usage(1, (self.input_tokens or 0) + cached, self.output_tokens or 0)


class Block(Struct):
    """A content block of a message, or a delta of one. `content` belongs to a tool result."""

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
        """None if the CLI does not make the call."""
        return self.input if isinstance(self.input, dict) and _UNPARSED_INPUT not in self.input else None

    @property
    def is_waiting(self) -> bool:
        """Whether it is the result of a call that waits for the user. The CLI does not pass on its `_meta`."""
        parts = self.content if isinstance(self.content, list) else [{"text": self.content}]
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        return bool(self.is_error) and any(_code_of(text) == ApprovalRequired.code for text in texts)


def _code_of(text: object) -> str | None:
    """Return the code of a tool error."""
    try:
        return msgspec.json.decode(str(text), type=_ToolError).code
    except msgspec.DecodeError:
        return None


class _ToolError(Struct):
    code: str


class ModelMessage(Struct):
    """A message of the model, or the start of one."""

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
    """An event of the Messages API's stream. `usage` is the count so far."""

    type: str
    message: ModelMessage | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: Tokens | None = None


class StreamLine(Struct):
    event: StreamEvent


class AssistantLine(Struct):
    """A block of a message, which has been streamed before unless the server does not stream."""

    message: ModelMessage
    error: str | None = None


class UserLine(Struct):
    """Results of tools, or a message that the CLI wrote in the user's name."""

    message: UserMessage
    tool_use_result: Any = None

    @property
    def results(self) -> list[Block]:
        content = self.message.content
        return [] if isinstance(content, str) else [block for block in content if block.type == "tool_result"]

    @property
    def has_lost_call(self) -> bool:
        """Whether a call was made and has no result of its tool.

        Such a line has a plain text beside the message. So has a call that was never made, but that one is marked.
        """
        failed = [block for block in self.results if block.is_error]
        return isinstance(self.tool_use_result, str) and not all(_was_never_made(block) for block in failed)


class ResultLine(Struct):
    """The end of the turn, or the confirmation of a batch. `subtype` is `success` for most failures too."""

    is_error: bool
    subtype: str = ""
    terminal_reason: str | None = None
    api_error_status: int | None = None


def _was_never_made(result: Block) -> bool:
    return isinstance(result.content, str) and result.content.startswith(_TOOL_USE_ERROR)


OutputLine = SystemLine | StreamLine | AssistantLine | UserLine | ResultLine

_SHAPES: dict[str, type[OutputLine]] = {
    "system": SystemLine,
    "stream_event": StreamLine,
    "assistant": AssistantLine,
    "user": UserLine,
    "result": ResultLine,
}


def parse_output_line(text: bytes) -> OutputLine | None:
    """None for a line of a type that is not used. Raises `ModelBadResponse` for a line of unknown shape."""
    try:
        line = json.loads(text)  # unlike msgspec, accepts a lone surrogate, which a stream may contain
        shape = _SHAPES.get(line["type"])
        return None if shape is None else msgspec.convert(line, shape)
    except (ValueError, TypeError, LookupError) as error:
        raise ModelBadResponse("The Claude CLI wrote a line of unknown shape: check its version.") from error
