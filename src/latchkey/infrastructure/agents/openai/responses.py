"""OpenAI's Responses API: encodes requests and decodes answers."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec
from agents import FunctionTool, Tool, TResponseInputItem
from agents.items import TResponseOutputItem
from msgspec import Struct
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
)

from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.model_failures import truncated_answer
from latchkey.infrastructure.agents.openai.model import (
    DONE,
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    decode_json,
    encode_json,
)
from latchkey.infrastructure.agents.openai.model_client import error_event
from latchkey.infrastructure.agents.turn_tasks import storable

_PHASES = ("commentary", "final_answer")


class _Part(Struct):
    type: str
    text: str = ""
    refusal: str = ""

    @property
    def item(self) -> ResponseOutputText | ResponseOutputRefusal:
        if self.type == "refusal":
            return ResponseOutputRefusal(type="refusal", refusal=storable(self.refusal))
        return ResponseOutputText(type="output_text", text=storable(self.text), annotations=[])


class _Message(Struct):
    content: list[_Part]
    phase: Any = None

    @property
    def item(self) -> ResponseOutputMessage:
        content = [part.item for part in self.content]
        phase = {"phase": self.phase} if self.phase in _PHASES else {}
        return ResponseOutputMessage(
            type="message", id="", role="assistant", status="completed", content=content, **phase
        )


class _Call(Struct):
    call_id: str
    name: str
    arguments: str

    @property
    def item(self) -> ResponseFunctionToolCall:
        return ResponseFunctionToolCall(
            type="function_call", call_id=self.call_id, name=self.name, arguments=self.arguments, status="completed"
        )


def _completed_response(output: list[dict[str, Any]]) -> CompletedResponse:
    """The messages and tool calls. Other items, such as reasoning, are not sent back to the server."""
    items: list[TResponseOutputItem] = []
    text = ""
    for item in output:
        match item.get("type"):
            case "message":
                message = msgspec.convert(item, _Message)
                text += "".join(part.text for part in message.content)
                items.append(message.item)
            case "function_call":
                items.append(msgspec.convert(item, _Call).item)
    return CompletedResponse(items, text)


class ResponsesApi:
    """Decodes only the fields that are used, without the SDK's validation: most turns use this API."""

    path = "responses"

    def __init__(self, model: str) -> None:
        self._model = model

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """The server is told to store nothing, so items are sent without the ids under which it would look them up."""
        request: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "store": False,
            "include": [],
            "input": [_without_id(item) for item in conversation],
            "tools": [_tool_definition(tool) for tool in tools if isinstance(tool, FunctionTool)],
        }
        if instructions is not None:
            request["instructions"] = instructions
        if tools:
            request["parallel_tool_calls"] = False
        return encode_json(request)

    async def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        async for events in chunks:
            yield [model_event for data in events for model_event in _decode_event(data)]


def _without_id(item: Any) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def _tool_definition(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.params_json_schema,
        "strict": tool.strict_json_schema,
    }


class _Event(Struct):
    type: str = ""
    code: Any = None
    error: Any = None


class _Delta(Struct):
    delta: str


class _Tokens(Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Error(Struct):
    code: Any = None


class _Response(Struct):
    output: list[dict[str, Any]] = []
    usage: _Tokens | None = None
    error: _Error | None = None

    @property
    def usage_event(self) -> Usage:
        return Usage(1, self.usage.input_tokens, self.usage.output_tokens) if self.usage else Usage(1)


class _FinalEvent(Struct):
    response: _Response


def _decode_event(data: bytes) -> list[ModelEvent]:
    if data.startswith(DONE):
        return []
    event = decode_json(data, _Event)
    if event.error or event.type == "error":
        return [error_event(event.error.get("code") if isinstance(event.error, dict) else event.code)]
    decode = _DECODERS.get(event.type)
    return decode(data) if decode else []


def _text(data: bytes) -> list[ModelEvent]:
    return [TextEvent(decode_json(data, _Delta).delta)]


def _output_item_added(_: bytes) -> list[ModelEvent]:
    return [ParagraphBreak()]


def _completed(data: bytes) -> list[ModelEvent]:
    response = decode_json(data, _FinalEvent).response
    return [response.usage_event, _completed_response(response.output)]


def _incomplete(data: bytes) -> list[ModelEvent]:
    return [decode_json(data, _FinalEvent).response.usage_event, truncated_answer()]


def _failed(data: bytes) -> list[ModelEvent]:
    response = decode_json(data, _FinalEvent).response
    return [response.usage_event, error_event(response.error.code if response.error else None)]


_DECODERS: dict[str, Callable[[bytes], list[ModelEvent]]] = {
    "response.output_text.delta": _text,
    "response.refusal.delta": _text,
    "response.output_item.added": _output_item_added,
    "response.completed": _completed,
    "response.incomplete": _incomplete,
    "response.failed": _failed,
}
