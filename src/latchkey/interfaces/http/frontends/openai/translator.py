"""Translates the events of a turn into the events and the response object of OpenAI's Responses API."""

from collections.abc import Sequence
from typing import Any

from latchkey.domain.errors import TurnInterrupted
from latchkey.domain.turn import TurnSummary
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    ApprovalRequestedEvent,
    EventData,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    TurnWaitingEvent,
)
from latchkey.interfaces.http.frontends.openai.calls import CallItems
from latchkey.interfaces.http.frontends.openai.ids import FIRST_PART, WHOLE_TURN, ResponsePart, text_item_id
from latchkey.interfaces.http.frontends.openai.items import Item, approval_response_item
from latchkey.interfaces.http.frontends.openai.objects import new_response, usage_of
from latchkey.interfaces.http.frontends.openai.output import ResponseOutput
from latchkey.interfaces.http.frontends.openai.texts import AnswerTexts
from latchkey.interfaces.http.frontends.turn_events import INTERRUPTED, EventReader


class ResponseTranslator:
    """Translates the events of one turn, which it receives in order from the first one on, into one response.

    The translation depends only on the events and on what does not change of a turn. So the n-th translated event is
    the same each time. Events up to the number `after` are translated, and not returned. With the `log` of the turn so
    far, text that is withdrawn later is left out; the numbers of the other events do not change.
    """

    def __init__(
        self, turn: TurnSummary, after: int = -1, part: ResponsePart = FIRST_PART, log: Sequence[TurnEvent] = ()
    ) -> None:
        self.part = part
        self.is_over = False
        self.decisions: list[Item] = []
        """The decisions with which the part begins."""
        self.turn_id = turn.id
        self._output = ResponseOutput(new_response(turn, part), after)
        self._texts = AnswerTexts(self._output, log)
        self._calls = CallItems(turn.id, self._output, self._texts)
        self._reader = EventReader()

    @property
    def response(self) -> dict[str, Any]:
        """The response. It has no output before it is over."""
        return self._output.response

    @property
    def items(self) -> list[Item]:
        """The items of the output so far."""
        return self._output.items

    def translate(self, event: TurnEvent) -> bytes:
        """Return the translated events as server-sent events."""
        data = self._reader.read(event)
        if self.is_over or data is None:
            return b""
        if event.seq <= self.part.start:
            self._read_earlier(data)
            return b""
        if event.seq == self.part.start + 1:
            self._output.emit("response.created", response=self.response)
            self._output.emit("response.in_progress", response=self.response)
            if self.part.start:
                self._texts.begin_response()
                self._calls.show_late()
        self.is_over = self.part.ends_with(event)
        if self.is_over:
            self._end(data)
        else:
            self._translate(data, event.seq)
        return self._output.take_frames()

    def _read_earlier(self, data: EventData) -> None:
        """Read an event of an earlier response, for what a later one shows of it."""
        match data:
            case MessageDeltaEvent(text):
                self._texts.skip(text)
            case MessageWithdrawnEvent(length):
                self._texts.withdraw(length)
            case ToolCallStartedEvent():
                self._calls.read_start(data)
            case ToolCallCompletedEvent():
                self._calls.read_result(data)
            case ApprovalRequestedEvent(id=id):
                self._calls.request_approval(id, is_shown=True)
            case ApprovalDecidedEvent(id=id):
                self._calls.read_decision(id)
            case TurnWaitingEvent():
                self._calls.read_waiting()

    def _translate(self, data: EventData, seq: int) -> None:
        match data:
            case MessageDeltaEvent(text):
                self._texts.add(text, seq, text_item_id(self.turn_id, seq))
            case MessageWithdrawnEvent(length):
                self._texts.withdraw(length)
            case ToolCallStartedEvent():
                self._calls.start(data)
            case ToolCallCompletedEvent():
                self._calls.close(data)
            case ApprovalRequestedEvent(id=id):
                self._calls.request_approval(id)
            case ApprovalDecidedEvent(id=id):
                self._calls.decide(id)
                self._add_decision(data, seq)
            case TurnWaitingEvent() if self.part is WHOLE_TURN:
                self._calls.show_questions(again=False)
                self._texts.begin_response()

    def _add_decision(self, decision: ApprovalDecidedEvent, seq: int) -> None:
        item = approval_response_item(self.turn_id, decision)
        if seq <= self.part.last:
            self.decisions.append(item)
        if self.part is WHOLE_TURN:
            self._output.add_item(item)

    def _end(self, data: EventData) -> None:
        """Complete the response with the last event of the turn, or where the turn waits."""
        is_waiting = isinstance(data, TurnWaitingEvent)
        self._texts.close("completed" if is_waiting or isinstance(data, TurnCompletedEvent) else "incomplete")
        self._calls.close_all(is_waiting=is_waiting)
        match data:
            case TurnWaitingEvent():
                self._calls.show_questions(again=True)
                self._output.end("completed", "completed")
            case TurnCompletedEvent(usage=usage):
                self._output.end("completed", "completed", usage=usage_of(usage))
            case TurnFailedEvent(code, detail):
                error = "rate_limit_exceeded" if code == "rate-limited" else "server_error"
                self._output.end("failed", "failed", error={"code": error, "message": f"{detail} ({code})"})
            case TurnInterruptedEvent():
                message = f"{INTERRUPTED} ({TurnInterrupted.code})"
                self._output.end("failed", "failed", error={"code": "server_error", "message": message})
            case TurnCancelledEvent():
                # The SDKs know no `response.cancelled`.
                self._output.end("cancelled", "incomplete")
