"""Translates the events of a turn into the events and the response object of OpenAI's Responses API."""

from typing import Any

import msgspec

from latchkey.domain.errors import TurnInterrupted
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnSummary
from latchkey.domain.turn_event import (
    MessageDeltaEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    TurnStartedEvent,
)
from latchkey.interfaces.http.frontends.openai.ids import TOOL_CALL, encode_id, text_item_id
from latchkey.interfaces.http.frontends.openai.objects import new_response, usage_of
from latchkey.interfaces.http.frontends.turn_events import INTERRUPTED, NO_RESULT, EventReader

_encode = msgspec.json.Encoder().encode


class ResponseTranslator:
    """Translates the events of one turn, which it receives in order from the first one on.

    The translation depends only on the events and on what does not change of a turn. So the n-th translated event has
    the same bytes each time. Events up to the number `after` are translated, and not returned.
    """

    def __init__(self, turn: TurnSummary, after: int = -1) -> None:
        self.response = new_response(turn)
        self._output: list[dict[str, Any]] = self.response["output"]
        self._after, self._number = after, 0
        self._text_index: int | None = None
        self._text: list[str] = []
        """The pieces of the open text, which its item gets when it is complete."""
        self._open_calls: dict[ToolCallId, int] = {}
        self._frames: list[bytes] = []
        self._reader = EventReader()

    def translate(self, event: TurnEvent) -> bytes:
        """Return the translated events as server-sent events."""
        match self._reader.read(event):
            case TurnStartedEvent():
                self._emit("response.created", response=self.response)
                self._emit("response.in_progress", response=self.response)
            case MessageDeltaEvent(text):
                self._add_text(text, text_item_id(event.turn_id, event.seq))
            case ToolCallStartedEvent() as call:
                self._close_text("completed")
                self._open_call(call.id, call.name, bytes(call.arguments).decode())
            case ToolCallCompletedEvent() as call:
                if call.id not in self._open_calls:
                    self._close_text("completed")
                    self._open_call(call.id, call.name, "{}")
                self._close_call(call.id, bytes(call.result).decode(), is_error=call.is_error)
            case TurnCompletedEvent(usage=usage):
                self._end("completed", "completed", usage=usage_of(usage))
            case TurnFailedEvent(code, detail):
                error = "rate_limit_exceeded" if code == "rate-limited" else "server_error"
                self._end("failed", "failed", error={"code": error, "message": f"{detail} ({code})"})
            case TurnInterruptedEvent():
                message = f"{INTERRUPTED} ({TurnInterrupted.code})"
                self._end("failed", "failed", error={"code": "server_error", "message": message})
            case TurnCancelledEvent():
                # The SDKs know no `response.cancelled`.
                self._end("cancelled", "incomplete")
            case _:
                pass  # an artifact is in the output of its tool call
        frames, self._frames = b"".join(self._frames), []
        return frames

    def _emit(self, type: str, **data: Any) -> None:
        if self._number > self._after:
            body = _encode({"type": type, "sequence_number": self._number, **data})
            # No `id` line: openai-python would take the blank line behind a comment for an event.
            self._frames.append(b"event: %s\ndata: %s\n\n" % (type.encode(), body))
        self._number += 1

    def _emit_item(self, type: str, index: int, **data: Any) -> None:
        self._emit(type, item_id=self._output[index]["id"], output_index=index, **data)

    def _add_item(self, item: dict[str, Any]) -> int:
        index = len(self._output)
        self._output.append(item)
        self._emit("response.output_item.added", output_index=index, item=item)
        return index

    def _add_text(self, text: str, id: str) -> None:
        if (index := self._text_index) is None:
            message: dict[str, Any] = {"id": id, "type": "message", "role": "assistant", "status": "in_progress"}
            index = self._text_index = self._add_item({**message, "content": []})
            self._text = []
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._emit_item("response.content_part.added", index, content_index=0, part=part)
            self._output[index]["content"].append(part)
        self._text.append(text)
        self._emit_item("response.output_text.delta", index, content_index=0, delta=text, logprobs=[])

    def _close_text(self, status: str) -> None:
        if (index := self._text_index) is None:
            return
        self._text_index = None
        item = self._output[index]
        part = item["content"][0]
        part["text"] = "".join(self._text)
        item["status"] = status
        self._emit_item("response.output_text.done", index, content_index=0, text=part["text"], logprobs=[])
        self._emit_item("response.content_part.done", index, content_index=0, part=part)
        self._emit("response.output_item.done", output_index=index, item=item)

    def _open_call(self, id: ToolCallId, name: str, arguments: str) -> None:
        item: dict[str, Any] = {"id": encode_id(TOOL_CALL, id), "type": "mcp_call", "server_label": "latchkey"}
        item |= {"name": name, "arguments": "", "output": None, "error": None, "approval_request_id": None}
        index = self._open_calls[id] = self._add_item({**item, "status": "in_progress"})
        self._emit_item("response.mcp_call.in_progress", index)
        self._emit_item("response.mcp_call_arguments.delta", index, delta=arguments)
        self._emit_item("response.mcp_call_arguments.done", index, arguments=arguments)
        self._output[index]["arguments"] = arguments

    def _close_call(self, id: ToolCallId, result: str, *, is_error: bool) -> None:
        index = self._open_calls.pop(id)
        status = "failed" if is_error else "completed"
        content = [{"type": "text", "text": result}]
        error = {"type": "mcp_tool_execution_error", "content": content} if is_error else None
        item = self._output[index]
        item.update(status=status, output=None if is_error else result, error=error)
        self._emit_item(f"response.mcp_call.{status}", index)
        self._emit("response.output_item.done", output_index=index, item=item)

    def _end(self, status: str, last_event: str, **changes: Any) -> None:
        self._close_text("completed" if status == "completed" else "incomplete")
        for id in [*self._open_calls]:
            self._close_call(id, NO_RESULT, is_error=True)
        self.response.update(status=status, **changes)
        self._emit(f"response.{last_event}", response=self.response)
