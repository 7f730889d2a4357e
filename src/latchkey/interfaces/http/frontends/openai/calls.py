"""Tool calls as items of a response, and the questions to the user about them."""

from msgspec import Struct

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ToolCallCompletedEvent, ToolCallStartedEvent
from latchkey.interfaces.http.frontends.openai.ids import (
    TOOL_CALL,
    approval_request_id,
    decided_call_item_id,
    encode_id,
)
from latchkey.interfaces.http.frontends.openai.items import approval_request_item, call_item
from latchkey.interfaces.http.frontends.openai.output import ResponseOutput
from latchkey.interfaces.http.frontends.openai.texts import AnswerTexts
from latchkey.interfaces.http.frontends.turn_events import NO_RESULT


class _Call(Struct):
    """A call without a result. `index` is that of its item, if it has begun.

    `is_shown` says that an item shows the question about the call: of this response, or of an earlier one. `is_late`
    says that the turn waited for other decisions while the call ran.
    """

    name: str
    arguments: str
    index: int | None = None
    is_asked: bool = False
    is_shown: bool = False
    is_decided: bool = False
    is_late: bool = False


class CallItems:
    """Adds the tool calls of a turn to the output, and the questions about them."""

    def __init__(self, turn_id: TurnId, output: ResponseOutput, texts: AnswerTexts) -> None:
        self._turn_id = turn_id
        self._output = output
        self._texts = texts
        self._calls: dict[ToolCallId, _Call] = {}
        self._late: list[tuple[_Call, ToolCallCompletedEvent]] = []
        """Results of an earlier part of the turn that no earlier response has shown."""

    def read_start(self, event: ToolCallStartedEvent) -> _Call:
        """Read the start of a call, which may belong to an earlier response."""
        call = self._calls[event.id] = _Call(event.name, bytes(event.arguments).decode())
        return call

    def read_waiting(self) -> None:
        """Read the end of an earlier response. The approved calls that have no result yet are late."""
        for call in self._calls.values():
            call.is_late = call.is_decided

    def read_result(self, event: ToolCallCompletedEvent) -> None:
        """Drop a call whose result an earlier response has shown."""
        call = self._calls.pop(event.id, None)
        if call is not None and call.is_late:
            self._late.append((call, event))

    def read_decision(self, id: ToolCallId) -> None:
        """End a question with which an earlier response began. That one has shown the results so far."""
        self._late.clear()
        self.decide(id)

    def show_late(self) -> None:
        """Add the calls whose results came while the turn waited for the decisions with which the response begins."""
        for call, event in self._late:
            self._complete(event.id, call, bytes(event.result).decode(), is_error=event.is_error)

    def start(self, event: ToolCallStartedEvent) -> None:
        """Begin a call."""
        call = self.read_start(event)
        call.index = self._begin(event.id, call)

    def close(self, event: ToolCallCompletedEvent) -> None:
        """Complete a call with its result."""
        call = self._calls.pop(event.id, None) or _Call(event.name, "{}")
        self._complete(event.id, call, bytes(event.result).decode(), is_error=event.is_error)

    def request_approval(self, id: ToolCallId, *, is_shown: bool = False) -> None:
        """Replace a call by the question about it. The item of the call, which clients saw begin, is left out."""
        call = self._calls[id]
        call.is_asked, call.is_shown = True, is_shown
        if call.index is not None:
            self._output.item(call.index)["status"] = "incomplete"
            self._output.complete_item(call.index)
            self._output.remove_item(call.index)
            call.index = None

    def decide(self, id: ToolCallId) -> None:
        """End a question. It is shown if it was decided before the turn waited."""
        call = self._calls[id]
        if not call.is_shown:
            self._show(id, call)
        call.is_asked, call.is_decided = False, True

    def show_questions(self, *, again: bool) -> None:
        """Add an item for each open question; with `again` also for those that an earlier response has shown."""
        for id, call in self._calls.items():
            if call.is_asked and (again or not call.is_shown):
                self._show(id, call)

    def close_all(self, *, is_waiting: bool) -> None:
        """Complete the calls without a result. While the turn waits, those that the user decides on have none yet."""
        for id, call in self._calls.items():
            if not (is_waiting and call.index is None):
                self._complete(id, call, NO_RESULT, is_error=True)

    def _show(self, id: ToolCallId, call: _Call) -> None:
        self._texts.close()
        call.is_shown = True
        self._output.add_item(approval_request_item(self._turn_id, id, call.name, call.arguments))

    def _begin(self, id: ToolCallId, call: _Call) -> int:
        self._texts.close()
        item = call_item(encode_id(TOOL_CALL, id), call.name)
        if call.is_decided:
            request_id = approval_request_id(self._turn_id, id)
            item = call_item(decided_call_item_id(id), call.name, request_id)
        index = self._output.begin_item(item)
        self._output.emit_for_item("response.mcp_call.in_progress", index)
        self._output.emit_for_item("response.mcp_call_arguments.delta", index, delta=call.arguments)
        self._output.emit_for_item("response.mcp_call_arguments.done", index, arguments=call.arguments)
        item["arguments"] = call.arguments
        return index

    def _complete(self, id: ToolCallId, call: _Call, result: str, *, is_error: bool) -> None:
        index = self._begin(id, call) if call.index is None else call.index
        status = "failed" if is_error else "completed"
        content = [{"type": "text", "text": result}]
        error = {"type": "mcp_tool_execution_error", "content": content} if is_error else None
        self._output.item(index).update(status=status, output=None if is_error else result, error=error)
        self._output.emit_for_item(f"response.mcp_call.{status}", index)
        self._output.complete_item(index)
