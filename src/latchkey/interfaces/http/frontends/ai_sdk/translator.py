"""Events of a turn as chunks of a UI message stream, the protocol of `useChat` (Vercel AI SDK 5, 6 and 7).

Chunks have known fields and types only: early releases of ai 5 refuse other fields, and all releases other types.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from latchkey.domain import turn_event
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.errors import TurnInterrupted
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.turn_events import CANCELLED, INTERRUPTED, NO_RESULT, EventReader

Chunk = dict[str, Any]

_FINISH_STEP: Chunk = {"type": "finish-step"}
_START_STEP: Chunk = {"type": "start-step"}
_DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class UIMessageTranslator:
    """Translates the events of one turn, in their order from the first on."""

    def __init__(self) -> None:
        self._reader = EventReader()
        self._text_id: str | None = None
        self._open_calls: dict[ToolCallId, None] = {}
        self._has_answered_calls = False
        """Whether the current step has calls, and all have a result."""
        self._follows_calls = False

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none."""
        frames = b"".join([b"data: %s\n\n" % _encode(chunk) for chunk in self.chunks(event)])
        return frames + _DONE if event.is_last else frames

    def chunks(self, event: TurnEvent) -> list[Chunk]:
        """Return the chunks for an event; none for an event that this release does not know."""
        data = self._reader.read(event)
        translate = _TRANSLATIONS.get(type(data))
        return [] if translate is None else translate(self, event, data)

    def start(self, event: TurnEvent, data: turn_event.TurnStartedEvent) -> list[Chunk]:
        metadata = {"turnId": event.turn_id, "conversationId": data.conversation_id, "agent": data.agent}
        return [{"type": "start", "messageId": event.turn_id, "messageMetadata": metadata}, _START_STEP]

    def text(self, event: TurnEvent, data: turn_event.MessageDeltaEvent) -> list[Chunk]:
        text = data.text
        if self._text_id is not None:
            return [{"type": "text-delta", "id": self._text_id, "delta": text}]
        # The log separates a text from the one before the calls by a blank line.
        text = text.lstrip("\n") if self._follows_calls else text
        if not text:
            return []
        self._text_id = f"{event.turn_id}-{event.seq}"
        start: Chunk = {"type": "text-start", "id": self._text_id}
        return [*self._begin_step(), start, {"type": "text-delta", "id": self._text_id, "delta": text}]

    def tool_call(self, _: TurnEvent, call: turn_event.ToolCallStartedEvent) -> list[Chunk]:
        before = [*self._end_text(), *self._begin_step()]
        self._open_calls[call.id] = None
        self._follows_calls = True
        # Without `providerExecuted` the client would run the tool, or send the message again with its result.
        chunk: Chunk = {
            "type": "tool-input-available",
            "toolCallId": call.id,
            "toolName": call.name,
            "input": call.arguments,
            "providerExecuted": True,
        }
        return [*before, chunk]

    def tool_result(self, _: TurnEvent, call: turn_event.ToolCallCompletedEvent) -> list[Chunk]:
        self._open_calls.pop(call.id, None)
        self._has_answered_calls = not self._open_calls
        if call.is_error:
            return [_output_error(call.id, _error_text(call.result))]
        output = call.result
        return [{"type": "tool-output-available", "toolCallId": call.id, "output": output, "providerExecuted": True}]

    def artifact(self, _: TurnEvent, artifact: ArtifactReference) -> list[Chunk]:
        return [*self._end_text(), {"type": "data-artifact", "id": artifact.id, "data": artifact}]

    def complete(self, _: TurnEvent, data: turn_event.TurnCompletedEvent) -> list[Chunk]:
        metadata = {"status": "completed", "messageId": data.message_id, "usage": data.usage}
        return [*self._end(NO_RESULT), _FINISH_STEP, {"type": "finish", "messageMetadata": metadata}]

    def cancel(self, _: TurnEvent, __: turn_event.TurnCancelledEvent) -> list[Chunk]:
        finish = {"type": "finish", "messageMetadata": {"status": "cancelled"}}
        return [*self._end(CANCELLED), {"type": "abort"}, finish]

    def interrupt(self, event: TurnEvent, _: turn_event.TurnInterruptedEvent) -> list[Chunk]:
        return self.fail(event, turn_event.TurnFailedEvent(TurnInterrupted.code, INTERRUPTED), "interrupted")

    def fail(self, _: TurnEvent, data: turn_event.TurnFailedEvent, status: str = "failed") -> list[Chunk]:
        metadata = {"status": status, "error": {"code": data.code, "detail": data.detail}}
        error = {"type": "error", "errorText": data.detail}
        finish = {"type": "finish"}
        return [*self._end(NO_RESULT), {"type": "message-metadata", "messageMetadata": metadata}, error, finish]

    def _begin_step(self) -> tuple[Chunk, ...]:
        """Begin another step after calls that all have results.

        Early releases of ai 5 send the message again without end if the last step has calls and all have succeeded.
        """
        is_answered, self._has_answered_calls = self._has_answered_calls, False
        return (_FINISH_STEP, _START_STEP) if is_answered else ()

    def _end_text(self) -> tuple[Chunk, ...]:
        id, self._text_id = self._text_id, None
        return () if id is None else ({"type": "text-end", "id": id},)

    def _end(self, error: str) -> list[Chunk]:
        """End the text, a step with answered calls, and the calls without a result."""
        open_calls = [_output_error(id, error) for id in self._open_calls]
        self._open_calls.clear()
        return [*self._end_text(), *self._begin_step(), *open_calls]


_TRANSLATIONS: dict[type, Callable[[UIMessageTranslator, TurnEvent, Any], list[Chunk]]] = {
    turn_event.TurnStartedEvent: UIMessageTranslator.start,
    turn_event.MessageDeltaEvent: UIMessageTranslator.text,
    turn_event.ToolCallStartedEvent: UIMessageTranslator.tool_call,
    turn_event.ToolCallCompletedEvent: UIMessageTranslator.tool_result,
    ArtifactReference: UIMessageTranslator.artifact,
    turn_event.TurnCompletedEvent: UIMessageTranslator.complete,
    turn_event.TurnCancelledEvent: UIMessageTranslator.cancel,
    turn_event.TurnFailedEvent: UIMessageTranslator.fail,
    turn_event.TurnInterruptedEvent: UIMessageTranslator.interrupt,
}


def _output_error(id: ToolCallId, error: str) -> Chunk:
    return {"type": "tool-output-error", "toolCallId": id, "errorText": error, "providerExecuted": True}


def _error_text(result: Raw) -> str:
    """Return the detail of the failed call, or the whole result if it has none."""
    content = msgspec.json.decode(result)
    detail = content.get("detail") if isinstance(content, dict) else None
    return detail if isinstance(detail, str) else bytes(result).decode()
