"""What a model has said and called, as the Responses API has it at the end and the Agents SDK goes on with it."""

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
from latchkey.infrastructure.agents.answer_text import storable
from latchkey.infrastructure.agents.openai.errors import cut_short, given_up
from latchkey.infrastructure.agents.openai.model_api import (
    DONE,
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    read,
    write,
)

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


def answer(output: list[dict[str, Any]]) -> CompletedResponse:
    """What was said and what is called; the rest, such as a model's reasoning, is the server's own affair."""
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
    """The hot one: of an answer only what is needed is read, and nothing of it is checked twice."""

    path = "responses"

    def __init__(self, model: str) -> None:
        self._model = model

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """Nothing is stored there, so nothing is sent back that the server would have to look up by its id."""
        request: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "store": False,
            "include": [],
            "input": [_without_id(item) for item in conversation],
            "tools": [_offered(tool) for tool in tools if isinstance(tool, FunctionTool)],
        }
        if instructions is not None:
            request["instructions"] = instructions
        if tools:
            request["parallel_tool_calls"] = False
        return write(request)

    async def decode_events(self, told: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        async for together in told:
            yield [event for data in together for event in _meaning(data)]


def _without_id(item: Any) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def _offered(tool: FunctionTool) -> dict[str, Any]:
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
    def cost(self) -> Usage:
        return Usage(1, self.usage.input_tokens, self.usage.output_tokens) if self.usage else Usage(1)


class _LastEvent(Struct):
    response: _Response


def _meaning(data: bytes) -> list[ModelEvent]:
    if data.startswith(DONE):
        return []
    event = read(data, _Event)
    if event.error or event.type == "error":
        return [given_up(event.error.get("code") if isinstance(event.error, dict) else event.code)]
    meaning = _MEANINGS.get(event.type)
    return meaning(data) if meaning else []


def _said(data: bytes) -> list[ModelEvent]:
    return [TextEvent(read(data, _Delta).delta)]


def _began_item(_: bytes) -> list[ModelEvent]:
    return [ParagraphBreak()]


def _completed(data: bytes) -> list[ModelEvent]:
    response = read(data, _LastEvent).response
    return [response.cost, answer(response.output)]


def _incomplete(data: bytes) -> list[ModelEvent]:
    return [read(data, _LastEvent).response.cost, cut_short()]


def _failed(data: bytes) -> list[ModelEvent]:
    response = read(data, _LastEvent).response
    return [response.cost, given_up(response.error.code if response.error else None)]


_MEANINGS: dict[str, Callable[[bytes], list[ModelEvent]]] = {
    "response.output_text.delta": _said,
    "response.refusal.delta": _said,
    "response.output_item.added": _began_item,
    "response.completed": _completed,
    "response.incomplete": _incomplete,
    "response.failed": _failed,
}
