"""What happens in the Claude CLI, as the events of a turn, with an ear for what is no answer."""

from collections.abc import Iterator

from msgspec import Struct

from latchkey.domain.agent import AgentEvent, ToolRequest, ToolReturned
from latchkey.domain.errors import ModelBadResponse, ToolsUnavailable
from latchkey.infrastructure.agents.answer_text import AnswerText
from latchkey.infrastructure.agents.claude.cli import SERVER, tool_name
from latchkey.infrastructure.agents.claude.errors import check_retry, failure_of
from latchkey.infrastructure.agents.claude.output import (
    SYNTHETIC,
    AssistantLine,
    Block,
    Line,
    McpServer,
    ModelMessage,
    ResultLine,
    StreamEvent,
    StreamLine,
    SystemLine,
    Tokens,
    UserLine,
)

_CONNECTED = [McpServer(SERVER, "connected")]
_CUT_SHORT = {"max_tokens", "model_context_window_exceeded"}


class _Spoken(Struct):
    """One message of the model's, as far as it has come."""

    tokens: Tokens
    has_content: bool = False
    stop_reason: str | None = None

    def check_end(self) -> None:
        """Raises `ModelBadResponse` unless the message is whole and says or does something."""
        if self.stop_reason is None:
            raise ModelBadResponse("The model's answer broke off before its end.")
        if self.stop_reason in _CUT_SHORT:
            raise ModelBadResponse("The model's answer was cut short: it or the conversation is too long.")
        if not self.has_content:
            raise ModelBadResponse("The model answered nothing: no text and no tool call.")


class CliEventParser:
    """Hears the lines of one turn. `tools` are the names of those that the turn's token grants."""

    def __init__(self, tools: list[str]) -> None:
        self._tools = {tool_name(name): name for name in tools}
        self._is_equipped = False
        self._error: str | None = None
        self._speech = AnswerText()
        self._streamed: set[str] = set()
        self._unstreamed: str | None = None
        self._requested: set[str] = set()
        self._spoken: _Spoken | None = None

    def hear(self, line: Line) -> Iterator[AgentEvent]:
        """What a line tells. Raises the `TurnFailed` that it means."""
        match line:
            case SystemLine():
                self._hear_system(line)
            case StreamLine():
                yield from self._hear_event(line.event)
            case AssistantLine():
                yield from self._hear_message(line)
            case UserLine():
                yield from self._hear_results_of_tools(line)
            case ResultLine():
                self._hear_end(line)

    def check_answer(self) -> None:
        """Raises `ModelBadResponse` unless what was heard is an answer."""
        if self._spoken is None:
            raise ModelBadResponse("The Claude CLI ended the turn without an answer.")
        self._spoken.check_end()

    def _hear_system(self, line: SystemLine) -> None:
        if line.subtype == "init":
            if line.mcp_servers != _CONNECTED or set(line.tools) != self._tools.keys():
                raise ToolsUnavailable("The Claude CLI cannot reach its tools, or has others than its token grants.")
            self._is_equipped = True
        elif line.subtype == "api_retry":
            self._check_told()
            check_retry(line.error_status, line.retry_delay_ms)

    def _check_told(self) -> None:
        """Of a message that the model begins again, nothing may have been told."""
        if self._spoken is not None and self._spoken.has_content:
            self._spoken.check_end()

    def _hear_event(self, event: StreamEvent) -> Iterator[AgentEvent]:
        if event.type == "message_start" and event.message:
            self._check_told()
            self._streamed.add(event.message.id)
            self._spoken = _Spoken(event.message.usage)
        elif self._spoken is None:
            return  # What has no beginning is heard when it comes as a message.
        elif event.type == "content_block_start" and event.content_block:
            yield from self._hear_block(event.content_block, self._spoken)
        elif event.type == "content_block_delta" and event.delta:
            yield from self._hear_delta(event.delta, self._spoken)
        elif event.type == "message_delta" and event.delta:
            self._spoken.stop_reason = event.delta.stop_reason
            self._spoken.tokens = self._spoken.tokens.updated(event.usage)
        elif event.type == "message_stop":
            if self._spoken.stop_reason is not None:
                yield self._spoken.tokens.usage
            self._spoken.check_end()

    def _hear_block(self, block: Block, spoken: _Spoken) -> Iterator[AgentEvent]:
        self._speech.pause()
        spoken.has_content |= block.type == "tool_use"
        yield from self._hear_delta(block, spoken)

    def _hear_delta(self, delta: Block, spoken: _Spoken) -> Iterator[AgentEvent]:
        spoken.has_content |= bool(delta.text)
        yield from self._speech.say(delta.text or "")

    def _hear_message(self, line: AssistantLine) -> Iterator[AgentEvent]:
        """A message that was streamed is known by now. One that the CLI wrote itself says what went wrong."""
        if line.message.model == SYNTHETIC:
            self._error = line.error
            return
        if line.message.id not in self._streamed:
            yield from self._hear_unstreamed(line.message)
        for block in line.message.content:
            yield from self._hear_request(block)

    def _hear_request(self, block: Block) -> Iterator[AgentEvent]:
        """The CLI says what it will call before it does, and calls nothing but what it was given."""
        if block.type == "tool_use" and block.name in self._tools and block.arguments is not None:
            request = ToolRequest.create(block.id, self._tools[block.name], block.arguments)
            if request:
                self._requested.add(request.call_id)
                yield request

    def _hear_unstreamed(self, message: ModelMessage) -> Iterator[AgentEvent]:
        """One block of it a line, each with what the whole message has cost."""
        if self._spoken is None or message.id != self._unstreamed:
            self._check_told()
            self._unstreamed = message.id
            self._spoken = _Spoken(message.usage, stop_reason=message.stop_reason)
            yield message.usage.usage
        for block in message.content:
            yield from self._hear_block(block, self._spoken)

    def _hear_results_of_tools(self, line: UserLine) -> Iterator[AgentEvent]:
        """Raises `ToolsUnavailable` for a call whose effect nobody knows: the model is not to try it again."""
        if not line.results:
            raise ModelBadResponse("The model's answer is incomplete: the Claude CLI asked it to go on.")
        if line.is_lost:
            raise ToolsUnavailable("The agent lost its tools in the middle of the turn.")
        for result in line.results:
            if result.tool_use_id in self._requested:
                yield ToolReturned(result.tool_use_id)

    def _hear_end(self, line: ResultLine) -> None:
        if not self._is_equipped:
            raise ToolsUnavailable("The Claude CLI did not say which tools it has: check its version.")
        if line.is_error or line.subtype != "success":
            raise failure_of(line, self._error)
