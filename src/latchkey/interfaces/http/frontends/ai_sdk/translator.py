"""Events of a turn as chunks of a UI message stream, the protocol of `useChat` (Vercel AI SDK 5, 6 and 7).

Early releases of ai 5 refuse unknown fields, and all releases refuse unknown types: chunks have no others.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.errors import TurnInterrupted
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
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

Chunk = dict[str, Any]

INTERRUPTED = "The service was interrupted before the answer was complete. Send the message again."
NO_RESULT = "No result recorded."
CANCELLED = "Cancelled."

_FINISH_STEP: Chunk = {"type": "finish-step"}
_START_STEP: Chunk = {"type": "start-step"}
_DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class _ErrorResult(Struct, frozen=True):
    """The result of a failed tool call."""

    detail: str


_decode_error = msgspec.json.Decoder(_ErrorResult).decode


class UIMessageTranslator:
    """Translates the events of one turn, in their order from the first on."""

    def __init__(self) -> None:
        self._text_id: str | None = None
        self._open_calls: dict[ToolCallId, None] = {}
        self._has_answered_calls = False
        """Whether the current step has calls, and all have a result."""
        self._follows_calls = False

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none."""
        frames = b"".join(b"data: %s\n\n" % _encode(chunk) for chunk in self.chunks(event))
        return frames + _DONE if event.is_last else frames

    def chunks(self, event: TurnEvent) -> Iterator[Chunk]:
        """Yield the chunks for an event; none for an event that this release does not know."""
        match event.decode():
            case MessageDeltaEvent(text):
                yield from self._text(event, text)
            case TurnStartedEvent() as started:
                yield from _start(event.turn_id, started)
            case ToolCallStartedEvent() as call:
                yield from self._tool_call(call)
            case ToolCallCompletedEvent() as call:
                yield from self._tool_result(call)
            case ArtifactReference() as artifact:
                yield from self._end_text()
                yield {"type": "data-artifact", "id": artifact.id, "data": artifact}
            case TurnCompletedEvent() as completed:
                yield from self._end(NO_RESULT)
                yield _FINISH_STEP
                metadata = {"status": "completed", "messageId": completed.message_id, "usage": completed.usage}
                yield {"type": "finish", "messageMetadata": metadata}
            case TurnCancelledEvent():
                yield from self._end(CANCELLED)
                yield {"type": "abort"}
                yield {"type": "finish", "messageMetadata": {"status": "cancelled"}}
            case TurnFailedEvent(code, detail):
                yield from self._fail("failed", code, detail)
            case TurnInterruptedEvent():
                yield from self._fail("interrupted", TurnInterrupted.code, INTERRUPTED)

    def _text(self, event: TurnEvent, text: str) -> Iterator[Chunk]:
        if self._text_id is None:
            # The log separates a text from the one before the calls by a blank line.
            text = text.lstrip("\n") if self._follows_calls else text
            if not text:
                return
            yield from self._begin_step()
            self._text_id = f"{event.turn_id}-{event.seq}"
            yield {"type": "text-start", "id": self._text_id}
        yield {"type": "text-delta", "id": self._text_id, "delta": text}

    def _tool_call(self, call: ToolCallStartedEvent) -> Iterator[Chunk]:
        yield from self._end_text()
        yield from self._begin_step()
        self._open_calls[call.id] = None
        self._follows_calls = True
        # Without `providerExecuted` the client would run the tool, or send the message again with its result.
        yield {
            "type": "tool-input-available",
            "toolCallId": call.id,
            "toolName": call.name,
            "input": call.arguments,
            "providerExecuted": True,
        }

    def _tool_result(self, call: ToolCallCompletedEvent) -> Iterator[Chunk]:
        self._open_calls.pop(call.id, None)
        self._has_answered_calls = not self._open_calls
        if call.is_error:
            yield _output_error(call.id, _error_text(call.result))
        else:
            yield {
                "type": "tool-output-available",
                "toolCallId": call.id,
                "output": call.result,
                "providerExecuted": True,
            }

    def _fail(self, status: str, code: str, detail: str) -> Iterator[Chunk]:
        yield from self._end(NO_RESULT)
        metadata = {"status": status, "error": {"code": code, "detail": detail}}
        yield {"type": "message-metadata", "messageMetadata": metadata}
        yield {"type": "error", "errorText": detail}
        yield {"type": "finish"}

    def _begin_step(self) -> Iterator[Chunk]:
        """Begin another step after calls that all have results.

        Early releases of ai 5 send the message again, and again, if the last step has calls and all have succeeded.
        """
        if self._has_answered_calls:
            self._has_answered_calls = False
            yield _FINISH_STEP
            yield _START_STEP

    def _end_text(self) -> Iterator[Chunk]:
        if self._text_id is not None:
            yield {"type": "text-end", "id": self._text_id}
            self._text_id = None

    def _end(self, error: str) -> Iterator[Chunk]:
        """End the text, the calls without a result, and a step with answered calls."""
        yield from self._end_text()
        yield from self._begin_step()
        for id in self._open_calls:
            yield _output_error(id, error)
        self._open_calls.clear()


def _start(turn_id: TurnId, started: TurnStartedEvent) -> Iterator[Chunk]:
    metadata = {"turnId": turn_id, "conversationId": started.conversation_id, "agent": started.agent}
    yield {"type": "start", "messageId": turn_id, "messageMetadata": metadata}
    yield _START_STEP


def _output_error(id: ToolCallId, error: str) -> Chunk:
    return {"type": "tool-output-error", "toolCallId": id, "errorText": error, "providerExecuted": True}


def _error_text(result: Raw) -> str:
    """Return the detail of the failed call, or the whole result if it has none."""
    try:
        return _decode_error(result).detail
    except msgspec.DecodeError:
        return bytes(result).decode()
