"""Converts the output of the Claude CLI to the events of a turn, and checks that the answer is complete."""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from latchkey.domain.agent import AgentEvent, ModelCall, PastStep, TurnWaiting
from latchkey.domain.errors import MaxSteps, ModelBadResponse, ModelUnavailable, ToolsUnavailable, TurnFailed
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.infrastructure.agents.claude.cli import MCP_SERVER_NAME, cli_tool_name
from latchkey.infrastructure.agents.claude.protocol import (
    SYNTHETIC,
    AssistantLine,
    Block,
    McpServer,
    ModelMessage,
    OutputLine,
    ResultLine,
    StreamEvent,
    StreamLine,
    SystemLine,
    Tokens,
    UserLine,
)
from latchkey.infrastructure.agents.model_failures import (
    INTERNAL_SERVER_ERROR,
    MAX_REPORTED_RETRY_AFTER_S,
    MAX_RETRY_WAIT_S,
    TOO_MANY_REQUESTS,
    context_too_long,
    empty_answer,
    error_status,
    incomplete_answer,
    malformed_answer,
    rate_limited,
    tools_lost,
    truncated_answer,
)
from latchkey.infrastructure.agents.turn_tasks import AnswerText, model_name

_CONNECTED = [McpServer(MCP_SERVER_NAME, "connected")]
_TRUNCATED = {"max_tokens", "model_context_window_exceeded"}
_TRANSIENT = {408, 409, TOO_MANY_REQUESTS}

_ADVICE = {
    400: "check that LATCHKEY_CLAUDE_MODEL and the server at ANTHROPIC_BASE_URL fit the Claude CLI",
    401: "check ANTHROPIC_API_KEY",
    403: "check what ANTHROPIC_API_KEY may use",
    404: "check LATCHKEY_CLAUDE_MODEL and ANTHROPIC_BASE_URL",
}


class _MessageState(Struct):
    """What has arrived of one message of the model."""

    tokens: Tokens
    model: str
    has_content: bool = False
    stop_reason: str | None = None

    @property
    def call(self) -> ModelCall:
        return ModelCall(self.tokens.usage, model_name(self.model), self.tokens.cache_read_input_tokens or 0)

    def check_complete(self) -> None:
        """Raises `ModelBadResponse` unless the message has ended and has a text or a tool call."""
        if self.stop_reason is None:
            raise incomplete_answer()
        if self.stop_reason in _TRUNCATED:
            raise truncated_answer()
        if not self.has_content:
            raise empty_answer()


class CliEventParser:
    """Takes the lines of one run. `tools` are the names of the tools that the turn's token grants.

    The texts of the `steps` are the beginning of the answer.
    """

    def __init__(self, tools: list[str], steps: Sequence[PastStep] = ()) -> None:
        self.tool_names = tools
        self._tools = {cli_tool_name(name): name for name in tools}
        self._has_reported_tools = False
        self._error: str | None = None
        self._answer_text = AnswerText(steps)
        self._streamed_ids: set[str] = set()
        self._unstreamed_id: str | None = None
        self._requested: set[str] = set()
        self._pending: set[str] = set()
        self._is_waiting = False
        self._message: _MessageState | None = None

    def feed(self, line: OutputLine) -> Iterator[AgentEvent]:
        """The events of a line. Raises the `TurnFailed` that the line means, and `TurnWaiting` after the last result.

        The CLI may have sent its next request to the model by then; it is cut off.
        """
        match line:
            case SystemLine():
                self._check_system(line)
            case StreamLine():
                yield from self._stream_event(line.event)
            case AssistantLine():
                yield from self._assistant_message(line)
            case UserLine():
                yield from self._tool_results(line)
            case ResultLine():
                self._check_result(line)
        if self._is_waiting and not self._pending and self._message and self._message.stop_reason:
            raise TurnWaiting

    @property
    def has_begun(self) -> bool:
        """Whether the model has begun an answer."""
        return self._message is not None

    def check_answer(self) -> None:
        """Raises `ModelBadResponse` unless the lines so far are a complete answer."""
        if self._message is None:
            raise ModelBadResponse("The Claude CLI ended the turn without an answer.")
        self._message.check_complete()

    def _check_system(self, line: SystemLine) -> None:
        if line.subtype == "init":
            servers = _CONNECTED if self._tools else []
            if line.mcp_servers != servers or set(line.tools) != self._tools.keys():
                raise ToolsUnavailable(
                    "The Claude CLI cannot reach its tools, or has other tools than its token grants."
                )
            self._has_reported_tools = True
        elif line.subtype == "api_retry":
            self._check_nothing_is_open()
            _check_retry(line.error_status, line.retry_delay_ms)

    def _check_nothing_is_open(self) -> None:
        """Raises `ModelBadResponse` if a message was published in part: the model is about to begin a new one."""
        if self._message is not None and self._message.has_content:
            self._message.check_complete()

    def _stream_event(self, event: StreamEvent) -> Iterator[AgentEvent]:
        if event.type == "message_start" and event.message:
            self._check_nothing_is_open()
            self._streamed_ids.add(event.message.id)
            self._message = _MessageState(event.message.usage, event.message.model)
        elif self._message is None:
            return  # A message whose start was not streamed is handled when it arrives whole.
        elif event.type == "content_block_start" and event.content_block:
            yield from self._begin_block(event.content_block, self._message)
        elif event.type == "content_block_delta" and event.delta:
            yield from self._append_text(event.delta, self._message)
        elif event.type == "message_delta" and event.delta:
            self._message.stop_reason = event.delta.stop_reason
            self._message.tokens = self._message.tokens.updated(event.usage)
        elif event.type == "message_stop":
            if self._message.stop_reason is not None:
                yield self._message.call
            self._message.check_complete()

    def _begin_block(self, block: Block, message: _MessageState) -> Iterator[AgentEvent]:
        self._answer_text.begin_paragraph()
        message.has_content |= block.type == "tool_use"
        yield from self._append_text(block, message)

    def _append_text(self, delta: Block, message: _MessageState) -> Iterator[AgentEvent]:
        message.has_content |= bool(delta.text)
        yield from self._answer_text.append(delta.text or "")

    def _assistant_message(self, line: AssistantLine) -> Iterator[AgentEvent]:
        """The text is known already if the message was streamed. A message of the CLI itself describes an error."""
        if line.message.model == SYNTHETIC:
            self._error = line.error
            return
        if line.message.id not in self._streamed_ids:
            yield from self._unstreamed_message(line.message)
        for block in line.message.content:
            yield from self._tool_request(block)

    def _tool_request(self, block: Block) -> Iterator[AgentEvent]:
        """The CLI writes this line before it makes the call. It calls no other tools than the granted ones."""
        if block.type == "tool_use" and block.name in self._tools and block.arguments is not None:
            self._pending.add(block.id)
            request = ToolRequest.create(block.id, self._tools[block.name], block.arguments)
            if request:
                self._requested.add(request.call_id)
                yield request

    def _unstreamed_message(self, message: ModelMessage) -> Iterator[AgentEvent]:
        """Each line has one block, and the usage of the whole message."""
        if self._message is None or message.id != self._unstreamed_id:
            self._check_nothing_is_open()
            self._unstreamed_id = message.id
            self._message = _MessageState(message.usage, message.model, stop_reason=message.stop_reason)
            yield self._message.call
        for block in message.content:
            yield from self._begin_block(block, self._message)

    def _tool_results(self, line: UserLine) -> Iterator[AgentEvent]:
        """Raises `ToolsUnavailable` for a call whose effect is unknown: the model must not try it again."""
        if not line.results:
            raise ModelBadResponse("The model's answer is incomplete: the Claude CLI asked the model to continue.")
        if line.has_lost_call:
            raise tools_lost()
        for result in line.results:
            self._pending.discard(result.tool_use_id)
            self._is_waiting = self._is_waiting or result.is_waiting
            if result.tool_use_id in self._requested:
                yield ToolReturned(result.tool_use_id)

    def _check_result(self, line: ResultLine) -> None:
        if not self._has_reported_tools:
            raise ToolsUnavailable("The Claude CLI did not report its tools: check its version.")
        if line.is_error or line.subtype != "success":
            raise _result_failure(line, self._error)


def _result_failure(result: ResultLine, error: str | None) -> TurnFailed:
    """The failure of a turn that ended with an error. `error` is the CLI's own code, if it gave one."""
    if result.terminal_reason == "max_turns" or result.subtype == "error_max_turns":
        return MaxSteps.of_turn()
    if result.terminal_reason == "prompt_too_long":
        return context_too_long()
    if result.api_error_status is not None:
        return _status_failure(result.api_error_status)
    if error == "rate_limit":
        return rate_limited()
    if error == "server_error":
        return ModelUnavailable(
            "The model's server cannot be reached, or ended its answer with an error: check ANTHROPIC_BASE_URL."
        )
    return malformed_answer()


def _status_failure(status: int) -> TurnFailed:
    return rate_limited() if status == TOO_MANY_REQUESTS else error_status(status, _ADVICE.get(status))


def _check_retry(status: int | None, delay_ms: float) -> None:
    """Raise the failure that the CLI is about to retry, unless the error is transient and the wait is short."""
    is_transient = status is None or status in _TRANSIENT or status >= INTERNAL_SERVER_ERROR
    if is_transient and delay_ms <= MAX_RETRY_WAIT_S * 1000:
        return
    if status == TOO_MANY_REQUESTS:
        raise rate_limited(min(math.ceil(delay_ms / 1000), MAX_REPORTED_RETRY_AFTER_S))
    raise _status_failure(status or INTERNAL_SERVER_ERROR)
