"""The model of a turn: the port to one of OpenAI's APIs, and the SDK's model that publishes text while it answers."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import msgspec
from agents import Model, ModelResponse, Tool, TResponseInputItem
from agents import Usage as ModelUsage
from agents.items import TResponseOutputItem
from msgspec import Struct
from openai.types.responses import ResponseFunctionToolCall

from latchkey.domain.agent import RUN_METRICS, AgentEvent, AgentRun, ModelCall, PastStep, TextDelta
from latchkey.domain.errors import ContextTooLong, Failure, ModelBadResponse
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall, is_usable_call_id
from latchkey.domain.turn import MAX_TOKENS, Usage
from latchkey.infrastructure.agents.model_failures import empty_answer, incomplete_answer
from latchkey.infrastructure.agents.openai.model_client import ModelClient
from latchkey.infrastructure.agents.openai.server_errors import window_fraction
from latchkey.infrastructure.agents.toolset import parse_object, result_text
from latchkey.infrastructure.agents.turn_tasks import AnswerText, model_name

Shape = TypeVar("Shape")

_DONE = b"[DONE]"
"""The data of the event that may end a stream."""


class TextEvent(Struct, frozen=True):
    """A piece of the model's text."""

    text: str


class ParagraphBreak(Struct, frozen=True):
    """The text that follows is a paragraph of its own."""


class CompletedResponse(Struct, frozen=True):
    """The whole answer.

    `output` is what the runner of the Agents SDK continues with. `text` is all text of the answer: a server may send
    it here only, without any `TextEvent`.
    """

    output: list[TResponseOutputItem]
    text: str

    @property
    def calls_tools(self) -> bool:
        return any(item.type == "function_call" for item in self.output)


ModelEvent = TextEvent | ParagraphBreak | ModelCall | CompletedResponse | Failure
"""A `Failure` is an event too: the text and the usage that arrived with it are published before it is raised."""


class ModelApi(Protocol):
    """Encodes the requests of one API and decodes its answers. `path` is relative to the server's base URL."""

    path: str

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """The body of a request."""
        ...

    def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        """Decode the data of server-sent events, one list for each list of events that arrived together.

        Raises the `Failure` of an answer that is not one, and `ValueError`, `TypeError`, `AttributeError` or
        `LookupError` for data of an unknown shape.
        """
        ...


_encode = msgspec.json.Encoder().encode


def decode_json(data: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError:
        # The standard library also accepts a lone surrogate, which occurs in a stream that is split anywhere.
        return msgspec.convert(json.loads(data), shape)


def encode_json(value: Any) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()  # writes a lone surrogate as an escape sequence


def is_end(data: bytes) -> bool:
    """Whether this is the data of the event that ends a stream."""
    return data.startswith(_DONE) or data.strip(b' "').startswith(_DONE)


def text_of(content: Any) -> str:
    """The text of a message or of its parts: some servers send a list where others send text. Thoughts are left out."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(map(text_of, content))
    if content.get("type") in {"thinking", "reasoning", "reasoning_text", "summary_text"}:
        return ""
    return text_of(content.get("text") or content.get("refusal") or content.get("value"))


def argument_text(arguments: Any) -> str:
    """Arguments as text. An object becomes its JSON; an empty one may stand for arguments that follow in pieces."""
    if isinstance(arguments, str):
        return arguments
    return _encode(arguments).decode() if arguments not in (None, {}) else ""


def model_call_of(answer: dict[str, Any]) -> ModelCall:
    """What a finished answer says of its request: one request at least, if the server reports no usage."""
    tokens = answer.get("usage")
    return ModelCall(usage_of(tokens) or Usage(1), model_name(answer.get("model")), cached_tokens_of(tokens))


def cached_tokens_of(tokens: Any) -> int:
    """The input tokens that the server read from its cache, as either of the two APIs reports them."""
    if not isinstance(tokens, dict):
        return 0
    details = tokens.get("input_tokens_details", tokens.get("prompt_tokens_details"))
    return token_count(details.get("cached_tokens")) if isinstance(details, dict) else 0


def usage_of(tokens: Any) -> Usage | None:
    """The usage of one request, as either of the two APIs names it; None if the server does not report it."""
    if not isinstance(tokens, dict):
        return None
    return Usage(
        1,
        token_count(tokens.get("input_tokens", tokens.get("prompt_tokens"))),
        token_count(tokens.get("output_tokens", tokens.get("completion_tokens"))),
    )


def token_count(value: Any) -> int:
    """A number of tokens within what can be stored and read as JSON by every client; 0 if it is none."""
    try:
        return min(max(int(value), 0), MAX_TOKENS)
    except (ValueError, TypeError, OverflowError):
        return 0


_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME_CHARS = 64
"""OpenAI refuses a request with any other name of a tool, also in a call that it is shown again."""

_MALFORMED = (ValueError, TypeError, AttributeError, LookupError)


def without_oldest_turns(
    history: list[TResponseInputItem], request_bytes: int, window_fraction: float | None
) -> list[TResponseInputItem]:
    """The newest turns with which a request that was too long fits into the context window.

    `window_fraction` is how much of that request fits. What does not is left out of the history alone, as the
    instructions, the tools and the current turn stay. If the fraction is unknown, half of the history is left out.
    """
    sizes = [len(encode_json(item)) for item in history]
    size = sum(sizes)
    room = size / 2 if window_fraction is None else size - (1 - window_fraction) * request_bytes
    for index, item in enumerate(history):
        if item.get("role") == "user" and size <= room:
            return history[index:]
        size -= sizes[index]
    return []


def input_items(history: list[PastTurn]) -> list[TResponseInputItem]:
    """The items of the earlier turns, oldest first."""
    return [item for turn in history for item in _turn_items(turn)]


def _turn_items(turn: PastTurn) -> list[TResponseInputItem]:
    items: list[TResponseInputItem] = [{"role": "user", "content": turn.message}]
    for call in turn.tool_calls:
        items += _call_items(call)
    if turn.answer is not None:
        # llama.cpp takes a message of the assistant only with a type.
        items.append({"type": "message", "role": "assistant", "content": turn.answer})
    return items


def step_items(steps: Sequence[PastStep]) -> list[TResponseInputItem]:
    """The items of steps of the current turn: texts, calls and results."""
    items: list[TResponseInputItem] = []
    for step in steps:
        if text := step.text.strip("\n"):
            items.append({"type": "message", "role": "assistant", "content": text})
        for call in step.tool_calls:
            items += _call_items(call)
    return items


def _call_items(call: ToolCall) -> list[TResponseInputItem]:
    call_id = str(call.id)
    arguments = bytes(call.arguments).decode() if call.has_arguments else "{}"
    return [
        {"type": "function_call", "call_id": call_id, "name": call.name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": result_text(call)},
    ]


Publish = Callable[[AgentEvent], Awaitable[None]]


class StreamingModel(Model):
    """Returns whole responses to the runner, and publishes their text while it streams in. Made for one turn.

    Replaces the SDK's own models because those validate each item of a conversation, each tool and each event against
    every type they know. The `history` is kept here and not given to the runner, which would copy and search it in
    each step. So are the `steps` of earlier attempts, which follow the user's message, the first item of the runner.
    """

    def __init__(
        self,
        api: ModelApi,
        client: ModelClient,
        agent_run: AgentRun,
        before_request: Callable[[], None],
        publish: Publish,
    ) -> None:
        self._api = api
        self._client = client
        self._history = input_items(agent_run.history)
        self._steps = step_items(agent_run.steps)
        self._before_request = before_request
        self._publish = publish
        self._answer_text = AnswerText(agent_run.steps)
        self._streamed: list[str] = []
        self._request_bytes = 0
        self._call_ids: set[str] = set()
        self.unreadable_arguments: dict[str, str] = {}

    async def get_response(self, *_: Any, **params: Any) -> ModelResponse:
        """Raises what `before_request` does, and the `TurnFailed` that says what is wrong with the answer."""
        self._before_request()
        self._answer_text.begin_paragraph()
        self._streamed = []
        try:
            response = await self._answer_within_window(params)
        except _MALFORMED as error:
            raise ModelBadResponse("The model's answer has an unknown shape.") from error
        for item in response.output:
            if item.type == "function_call":
                self._correct_call(item)
        return ModelResponse(output=response.output, usage=ModelUsage(), response_id=None)

    async def _answer_within_window(self, params: dict[str, Any]) -> CompletedResponse:
        """Send the request; if it is longer than the model's window, once more without the oldest turns."""
        try:
            return await self._send(params)
        except ContextTooLong as failure:
            history = without_oldest_turns(self._history, self._request_bytes, window_fraction(failure))
            if any(self._streamed) or len(history) == len(self._history):
                raise
            self._history = history
        return await self._send(params)

    async def _send(self, params: dict[str, Any]) -> CompletedResponse:
        message, *items = params["input"]
        conversation = [*self._history, message, *self._steps, *items]
        started = perf_counter()
        body = self._api.encode_request(params["system_instructions"], conversation, params["tools"])
        self._request_bytes = len(body)
        try:
            return await self._receive(body)
        except Failure as failure:
            self._client.log_failure(failure)
            raise
        finally:
            if (metrics := RUN_METRICS.get()) is not None:
                metrics.model_ms.append((perf_counter() - started) * 1000)

    def stream_response(self, *_: Any, **params: Any) -> Any:
        raise NotImplementedError("The turn is streamed by `get_response`, which publishes events.")

    async def _receive(self, body: bytes) -> CompletedResponse:
        response: CompletedResponse | None = None
        async with aclosing(self._client.stream(body)) as chunks, aclosing(self._api.decode_events(chunks)) as batches:
            async for batch in batches:
                response = next((event for event in batch if isinstance(event, CompletedResponse)), response)
                deltas = [delta for event in batch for delta in self._text_deltas(event)]
                await self._publish_text(deltas, is_last=response is not None and not response.calls_tools)
                await self._publish_call(batch)
        if response is None:
            raise incomplete_answer()
        if not any(self._streamed) and not response.calls_tools:
            raise empty_answer()
        return response

    def _correct_call(self, call: ResponseFunctionToolCall) -> None:
        """Give the call an id that no other call of the turn has, and a name and arguments that every server accepts.

        They are sent back to the server. Arguments that are no JSON object are kept in `unreadable_arguments`.
        """
        call.name = _NOT_IN_NAMES.sub("_", call.name.strip())[:_MAX_NAME_CHARS]
        if self._steps or call.call_id in self._call_ids or not is_usable_call_id(call.call_id):
            call.call_id = f"call_{uuid4().hex}"
        self._call_ids.add(call.call_id)
        if parse_object(call.arguments) is None:
            self.unreadable_arguments[call.call_id] = call.arguments
            call.arguments = "{}"
        elif not call.arguments.strip():
            call.arguments = "{}"

    def _text_deltas(self, event: ModelEvent) -> Iterator[TextDelta]:
        """Of the text of a completed response counts only what was not streamed before it."""
        if isinstance(event, ParagraphBreak):
            self._answer_text.begin_paragraph()
        elif isinstance(event, TextEvent | CompletedResponse):
            text = event.text
            if isinstance(event, CompletedResponse):
                streamed = "".join(self._streamed)
                text = text.removeprefix(streamed) if text.startswith(streamed) else ""
            self._streamed.append(text)
            yield from self._answer_text.append(text)

    async def _publish_text(self, deltas: list[TextDelta], *, is_last: bool) -> None:
        """Join the deltas that arrived with the end of the turn's answer: they are stored together with the end."""
        if is_last and deltas:
            deltas = [TextDelta("".join(delta.text for delta in deltas), is_last=True)]
        for delta in deltas:
            await self._publish(delta)

    async def _publish_call(self, batch: list[ModelEvent]) -> None:
        """Raises the failure in the batch, if there is one."""
        for event in batch:
            if isinstance(event, ModelCall):
                await self._publish(event)
            elif isinstance(event, Failure):
                raise event
