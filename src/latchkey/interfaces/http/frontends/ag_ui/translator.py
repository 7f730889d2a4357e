"""Events of a turn as events of the AG-UI protocol, for both generations of clients (`@ag-ui/client` 1.0 and 0.0.x).

The older clients raise an error for an unknown event type. The newer ones warn of unknown fields and of null.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import (
    FinalEvent,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    TurnStartedEvent,
    TurnWaitingEvent,
)
from latchkey.interfaces.http.frontends.ag_ui.interrupts import Interrupt, Interrupts
from latchkey.interfaces.http.frontends.ag_ui.run import AgUiEvent, Run
from latchkey.interfaces.http.frontends.turn_events import CANCELLED, NO_RESULT, EventReader

_encode = msgspec.json.Encoder().encode


class AgUiTranslator:
    """Translates the events of one turn, in their order from the first on.

    Each step of the model is one message. The first one has the id of the turn. A turn that waits for the user is
    several runs, or one for a client that follows it later.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reader = EventReader()
        self._message_id = ""
        self._metadata: dict[str, Any] = {}
        self._is_started = self._is_used = self._is_open = self._has_calls = self._follows_calls = False
        self._open_calls: dict[ToolCallId, Raw] = {}
        """The arguments of the calls that have no result."""
        self._interrupts = Interrupts()
        self._waits_at: int | None = None

    @property
    def interrupts(self) -> list[Interrupt]:
        """The open questions if the turn waits for the user after the newest event."""
        return [] if self._waits_at is None else self._interrupts.open

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none."""
        return self._run.encode(event.seq, self.events(event))

    def end(self) -> bytes:
        """Return the server-sent event that ends a run whose newest event says that the turn waits."""
        if self._waits_at is None:
            return b""
        return self._run.encode(self._waits_at, [self._run.interrupted(self.interrupts)], first=1)

    def events(self, event: TurnEvent) -> Iterator[AgUiEvent]:
        """Yield the AG-UI events for an event; none for an event that this release does not know."""
        self._waits_at = event.seq if event.is_waiting else None
        translated = [*self._translated(event)]
        if event.seq <= self._run.begins_after:
            return  # the client has it from an earlier run
        if not self._is_started:
            self._is_started = True
            yield from self._run.started(metadata=self._metadata)
            self._run = replace(self._run, snapshot=None)  # not kept in memory while the turn runs
        yield from translated

    def _translated(self, event: TurnEvent) -> Iterator[AgUiEvent]:
        data = self._reader.read(event)
        self._interrupts.update(data, self._open_calls)
        match data:
            case TurnStartedEvent(conversation_id, agent):
                self._message_id = str(event.turn_id)
                self._metadata = {"turnId": event.turn_id, "conversationId": conversation_id, "agent": agent}
            case MessageDeltaEvent(text):
                yield from self._text(event, text)
            case ToolCallStartedEvent() as call:
                yield from self._tool_call(event, call)
            case ToolCallCompletedEvent() as call:
                self._open_calls.pop(call.id, None)
                yield _result(call.id, call.result, is_error=call.is_error)
            case ArtifactReference() as artifact:
                yield from self._end_text()
                yield {"type": "CUSTOM", "name": "latchkey.artifact", "value": artifact}
            case TurnWaitingEvent() | MessageWithdrawnEvent():
                yield from self._end_text()
            case TurnCompletedEvent() | TurnFailedEvent() | TurnCancelledEvent() | TurnInterruptedEvent() as last:
                yield from self._end(last)

    def _text(self, event: TurnEvent, text: str) -> Iterator[AgUiEvent]:
        if not self._is_open:
            # The log separates a text from the one before the calls by a blank line.
            text = text.lstrip("\n") if self._follows_calls else text
            if not text:
                return
            if self._is_used:
                self._begin_message(event)
            self._is_used = self._is_open = True
            yield {"type": "TEXT_MESSAGE_START", "messageId": self._message_id, "role": "assistant"}
        if text:
            yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message_id, "delta": text}

    def _tool_call(self, event: TurnEvent, call: ToolCallStartedEvent) -> Iterator[AgUiEvent]:
        yield from self._end_text()
        if self._has_calls and not self._open_calls:
            self._begin_message(event)
        self._is_used = self._has_calls = self._follows_calls = True
        self._open_calls[call.id] = call.arguments
        parent = {"parentMessageId": self._message_id}
        yield {"type": "TOOL_CALL_START", "toolCallId": call.id, "toolCallName": call.name, **parent}
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": call.id, "delta": bytes(call.arguments).decode()}
        yield {"type": "TOOL_CALL_END", "toolCallId": call.id}

    def _begin_message(self, event: TurnEvent) -> None:
        """Begin a message with an id of its own: clients add events to the message whose id they have."""
        self._message_id = f"{event.turn_id}-{event.seq}"
        self._has_calls = False

    def _end_text(self) -> Iterator[AgUiEvent]:
        if self._is_open:
            self._is_open = False
            yield {"type": "TEXT_MESSAGE_END", "messageId": self._message_id}

    def _end(self, last: FinalEvent) -> Iterator[AgUiEvent]:
        """End the run. Open calls get an error as result: clients expect the page to run a call that has none."""
        yield from self._end_text()
        detail = CANCELLED if isinstance(last, TurnCancelledEvent) else NO_RESULT
        for id in self._open_calls:
            yield _result(id, Raw(_encode({"code": "no-result", "detail": detail})), is_error=True)
        self._open_calls.clear()
        yield self._run.ended(last)


def _result(id: ToolCallId, content: Raw, *, is_error: bool) -> AgUiEvent:
    result = {"toolCallId": id, "role": "tool", "content": bytes(content).decode()}
    metadata = {"metadata": {"isError": True}} if is_error else {}
    return {"type": "TOOL_CALL_RESULT", "messageId": f"{id}-result", **result, **metadata}
