"""OpenAI's Responses API: encodes requests and decodes answers."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from agents import FunctionTool, Tool, TResponseInputItem
from agents.items import TResponseOutputItem
from msgspec import Struct
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
)

from latchkey.domain.agent import ModelCall
from latchkey.domain.assistant import NO_OPTIONS, ModelOptions
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.model_failures import (
    aborted_answer,
    malformed_answer,
    truncated_answer,
    withheld_answer,
)
from latchkey.infrastructure.agents.openai.model import (
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    argument_text,
    decode_json,
    encode_json,
    is_end,
    model_call_of,
    text_of,
)
from latchkey.infrastructure.agents.openai.server_errors import error_event, is_error
from latchkey.infrastructure.agents.turn_tasks import storable

_PHASES = ("commentary", "final_answer")
_CALL_TYPES = {"function_call", "tool_call", "function"}
_ITEM_EVENTS = {
    "response.output_text.delta",
    "response.output_text.done",
    "response.refusal.delta",
    "response.refusal.done",
    "response.output_item.added",
    "response.output_item.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
}
_FINAL_EVENTS = {"completed", "done", "incomplete", "failed", "cancelled"}


class ResponsesApi:
    """Decodes only the fields that are used, without the SDK's validation: most turns use this API.

    `is_openai` means that the server is OpenAI's own: others refuse fields that only OpenAI knows. `options` are sent
    where they are set; `model` stands for `options.model`.
    """

    path = "responses"

    def __init__(self, model: str, options: ModelOptions = NO_OPTIONS, *, is_openai: bool) -> None:
        self._model = model
        self._options = options
        self._is_openai = is_openai

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """OpenAI is told to store nothing, so items are sent without the ids under which it would look them up."""
        request: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "input": [_without_id(item) for item in conversation],
            "tools": [self._tool_definition(tool) for tool in tools if isinstance(tool, FunctionTool)],
        }
        if self._is_openai:
            request |= {"store": False, "include": []}
        if self._options != NO_OPTIONS:
            request |= self._chosen_options()
        if instructions is not None:
            request["instructions"] = instructions
        if tools:
            request["parallel_tool_calls"] = False
        return encode_json(request)

    def _chosen_options(self) -> dict[str, Any]:
        effort = self._options.reasoning_effort
        options = {
            "temperature": self._options.temperature,
            "max_output_tokens": self._options.max_output_tokens,
            "reasoning": {"effort": effort} if effort else None,
        }
        return {name: value for name, value in options.items() if value is not None}

    async def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        """Reads nothing after the event that completes the answer: some servers do not close the connection."""
        answer = _Answer(None if self._is_openai else self._options.max_output_tokens)
        async for events in chunks:
            batch = [model_event for data in events for model_event in answer.add(data)]
            yield batch
            if answer.is_done:
                return

    def _tool_definition(self, tool: FunctionTool) -> dict[str, Any]:
        strict = {"strict": tool.strict_json_schema} if self._is_openai else {}
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.params_json_schema,
            **strict,
        }


def _without_id(item: Any) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


class _Event(Struct):
    type: Any = None
    error: Any = None


class _ItemEvent(Struct):
    """An event of one item of the output. Servers leave out some of these fields, or number all items 0."""

    item: Any = None
    item_id: Any = None
    output_index: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None


class _Item(Struct):
    """An item of the output as its events describe it."""

    item: dict[str, Any]
    output_index: Any
    is_done: bool = False
    text: str = ""
    arguments: str = ""

    @property
    def is_call(self) -> bool:
        return _is_call(self.item)

    @property
    def has_text(self) -> bool:
        return self.item.get("type") == "message"

    def whole(self) -> dict[str, Any]:
        """The item, with the arguments or the text of its other events where it has none."""
        if self.is_call and not argument_text(self.item.get("arguments")).strip():
            return {**self.item, "arguments": self.arguments}
        if self.has_text and not text_of(self.item.get("content")):
            return {**self.item, "content": self.text}
        return self.item


class _Answer:
    """The items of one answer while its events arrive.

    An answer that has as many tokens as `max_output_tokens` allows was cut off: llama.cpp reports it as completed.
    """

    def __init__(self, max_output_tokens: int | None) -> None:
        self.is_done = False
        self._max_output_tokens = max_output_tokens
        self._items: list[_Item] = []

    def add(self, data: bytes) -> list[ModelEvent]:
        """Add the data of one event, and return what it means. Events after the end mean nothing."""
        if self.is_done:
            return []
        if is_end(data):
            return self._end_without_response()
        event = decode_json(data, _Event)
        kind = event.type if isinstance(event.type, str) else ""
        if kind in _ITEM_EVENTS and not event.error:
            return self._add_item_event(kind, decode_json(data, _ItemEvent))
        name = kind.removeprefix("response.")
        is_of_no_use = name != kind and name not in _FINAL_EVENTS and name != "error" and not event.error
        return [] if is_of_no_use else self._add_other(kind, name, data)

    def _add_item_event(self, kind: str, event: _ItemEvent) -> list[ModelEvent]:
        match kind.removeprefix("response."):
            case "output_text.delta" | "refusal.delta":
                return self._add_text(event)
            case "output_item.added":
                self._add_item(event)
                return [ParagraphBreak()]
            case "output_item.done":
                self._finish_item(event)
            case "output_text.done" | "refusal.done":
                self._finish_text(event)
            case _:
                self._add_arguments(event)
        return []

    def _add_other(self, kind: str, name: str, data: bytes) -> list[ModelEvent]:
        """Add an event that ends the answer, an error, or a body that is the whole answer."""
        body = decode_json(data, dict[str, Any])
        if name in _FINAL_EVENTS and isinstance(response := body.get("response"), dict):
            return self._end(name, response)
        if is_error(body):
            self.is_done = True
            return [error_event(body)]
        if kind in {"", "response"} and (body.get("object") == "response" or "output" in body):
            return self._end("done", body)
        if name in _FINAL_EVENTS and name not in {"completed", "done"}:
            return self._end(name, body)
        return []

    def _add_text(self, event: _ItemEvent) -> list[ModelEvent]:
        delta = text_of(event.delta)
        item = self._find(event, is_call=False) or self._add(event, {"type": "message", "content": None})
        item.text += delta
        return [TextEvent(delta)]

    def _finish_text(self, event: _ItemEvent) -> None:
        text = text_of(event.text) or text_of(event.refusal)
        item = self._find(event, is_call=False) or self._add(event, {"type": "message", "content": None})
        if not item.text:
            item.text = text

    def _add_arguments(self, event: _ItemEvent) -> None:
        item = self._find(event, is_call=True)
        if item is None:
            return
        item.arguments += argument_text(event.delta)
        if whole := argument_text(event.arguments):
            item.arguments = whole

    def _add_item(self, event: _ItemEvent) -> None:
        if isinstance(event.item, dict):
            self._add(event, event.item)

    def _finish_item(self, event: _ItemEvent) -> None:
        """The last event of an item, which has all of it; on some servers it is the only one."""
        if not isinstance(event.item, dict):
            return
        open_items = [item for item in self._items if not item.is_done and _is_same(item, event)]
        if open_items:
            item = open_items[-1]
            item.item = {**item.item, **{name: value for name, value in event.item.items() if value is not None}}
        elif any(item.item == event.item and item.output_index == event.output_index for item in self._items):
            return
        else:
            item = self._add(event, event.item)
        item.is_done = True

    def _add(self, event: _ItemEvent, item: dict[str, Any]) -> _Item:
        self._items.append(_Item(item, event.output_index))
        return self._items[-1]

    def _find(self, event: _ItemEvent, *, is_call: bool) -> _Item | None:
        """The newest item of this kind that the event can be about."""
        items = [item for item in self._items[::-1] if item.is_call == is_call and (is_call or item.has_text)]
        same_id = [item for item in items if event.item_id and item.item.get("id") == event.item_id]
        same_index = [item for item in items if item.output_index == event.output_index]
        return next(iter([*same_id, *same_index, *items]), None)

    def _end(self, event: str, response: dict[str, Any]) -> list[ModelEvent]:
        """The end of the answer, from the response in its last event."""
        self.is_done = True
        call = model_call_of(response)
        status = response.get("status") or event
        if event in {"failed", "cancelled", "incomplete"}:
            status = event
        if response.get("error") or status == "failed":
            return [call, error_event(response)]
        if status == "incomplete":
            return [call, _incomplete(response.get("incomplete_details"))]
        if status not in {"completed", "done"}:
            return [call, aborted_answer()]
        if self._max_output_tokens and call.usage.output_tokens >= self._max_output_tokens:
            return [call, truncated_answer()]
        return [call, *self._completed(response.get("output"))]

    def _end_without_response(self) -> list[ModelEvent]:
        """The end of a stream whose last event does not have the response: whole if all its items are."""
        self.is_done = True
        if self._items and all(item.is_done for item in self._items):
            return [ModelCall(Usage(1)), *self._completed(None)]
        return []

    def _completed(self, output: Any) -> list[ModelEvent]:
        """The messages and tool calls. Other items, such as reasoning, are not sent back to the server.

        A server may send an item in an event of its own, in the last event, or in both.
        """
        listed = output if isinstance(output, list) else [output]
        items = [item for item in listed if isinstance(item, dict)]
        collected = [item.whole() for item in self._items if item.is_call or item.has_text]
        items = _merged(items, collected)
        if any(item.get("status") in {"incomplete", "failed"} for item in items):
            return [truncated_answer()]
        if not all(item.get("name") for item in items if _is_call(item)):
            return [malformed_answer()]
        text = "".join(text_of(item.get("content")) for item in items if item.get("type") == "message")
        return [CompletedResponse([sdk_item for item in items for sdk_item in _sdk_items(item)], text)]


def _is_same(item: _Item, event: _ItemEvent) -> bool:
    """Whether the event ends that item."""
    if item.item.get("type") != event.item.get("type"):
        return False
    if (call_id := event.item.get("call_id")) and (own_id := item.item.get("call_id")) and call_id != own_id:
        return False
    item_id, own_id = event.item.get("id"), item.item.get("id")
    return bool(item_id == own_id if item_id and own_id else item.output_index == event.output_index)


def _is_call(item: dict[str, Any]) -> bool:
    return item.get("type") in _CALL_TYPES


def _merged(items: list[dict[str, Any]], collected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of the last event, or those of the other events where these are more or say more."""
    calls = [item for item in items if _is_call(item)]
    collected_calls = [item for item in collected if _is_call(item)]
    messages = [item for item in items if item.get("type") == "message"]
    if len(collected_calls) > len(calls) or (not messages and not calls):
        return collected
    if not messages:
        messages = [item for item in collected if item.get("type") == "message"]
        items = [*messages, *items]
    if len(calls) == len(collected_calls):
        for call, other in zip(calls, collected_calls, strict=True):
            if not argument_text(call.get("arguments")).strip():
                call["arguments"] = other.get("arguments")
            call["name"] = call.get("name") or other.get("name")
            call["call_id"] = call.get("call_id") or other.get("call_id")
    return items


def _incomplete(details: Any) -> ModelEvent:
    reason = details.get("reason") if isinstance(details, dict) else None
    return withheld_answer() if reason == "content_filter" else truncated_answer()


def _sdk_items(item: dict[str, Any]) -> list[TResponseOutputItem]:
    if item.get("type") == "message":
        return [_message(item)]
    if not _is_call(item):
        return []
    call_id = item.get("call_id") or item.get("id")
    return [
        ResponseFunctionToolCall(
            type="function_call",
            call_id=str(call_id) if isinstance(call_id, str | int) else "",
            name=str(item["name"]),
            arguments=argument_text(item.get("arguments")),
            status="completed",
        )
    ]


def _message(item: dict[str, Any]) -> ResponseOutputMessage:
    phase = {"phase": item["phase"]} if item.get("phase") in _PHASES else {}
    parts = item.get("content")
    content = [_part(part) for part in (parts if isinstance(parts, list) else [parts]) if part is not None]
    return ResponseOutputMessage(type="message", id="", role="assistant", status="completed", content=content, **phase)


def _part(part: Any) -> ResponseOutputText | ResponseOutputRefusal:
    text = storable(text_of(part))
    if isinstance(part, dict) and part.get("type") == "refusal":
        return ResponseOutputRefusal(type="refusal", refusal=text)
    return ResponseOutputText(type="output_text", text=text, annotations=[])
