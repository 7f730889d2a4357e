"""Events of a turn as chunks of a UI message stream, the protocol of `useChat` (Vercel AI SDK 5, 6 and 7)."""

from collections.abc import Callable, Container
from typing import Any

from latchkey.domain import turn_event
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.errors import StreamBroken, TurnInterrupted
from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.ai_sdk import chunks
from latchkey.interfaces.http.frontends.ai_sdk.calls import CallTranslator
from latchkey.interfaces.http.frontends.ai_sdk.chunks import FINISH_STEP, START_STEP, Chunk
from latchkey.interfaces.http.frontends.turn_events import CANCELLED, INTERRUPTED, NO_RESULT, EventReader


class UIMessageTranslator:
    """Translates the events of one turn, in their order from the first on. `has_approvals` is False for ai 5."""

    def __init__(self, *, has_approvals: bool = True) -> None:
        self._reader = EventReader()
        self._calls = CallTranslator(has_approvals=has_approvals)
        self._text_id: str | None = None
        self._answer_length = 0
        self._has_answered_calls = False
        """Whether the current step has calls, and all have a result."""
        self._follows_calls = False
        self._is_waiting = False

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none.

        Raises `StreamBroken` if the event withdraws text that was returned before: most releases of the AI SDK cannot
        take text out of a message, but a page that resumes the stream replaces the message.
        """
        frames = chunks.encode_chunks(self.chunks_of(event))
        return frames + chunks.DONE if event.is_last else frames

    def end(self) -> bytes:
        """Return the server-sent events after the last event: a stream also ends where the turn waits for the user."""
        return chunks.encode_chunks(self.last_chunks()) + chunks.DONE if self._is_waiting else b""

    def chunks_of(self, event: TurnEvent) -> list[Chunk]:
        """Return the chunks for an event; none for an event that this release does not know."""
        data = self._reader.read(event)
        self._is_waiting = event.is_waiting
        translate = _TRANSLATIONS.get(type(data))
        return [] if translate is None else translate(self, event, data)

    def last_chunks(self) -> list[Chunk]:
        """Return the chunks after the last event; none if the turn does not wait for the user."""
        return [FINISH_STEP, chunks.finish({"status": "waiting"})] if self._is_waiting else []

    def begin_rest(self, known_calls: Container[str]) -> list[Chunk]:
        """Return the chunks of open calls that a client lacks which has another part of the message already.

        The next piece of text begins another text.
        """
        self._text_id = None
        return self._calls.open_except(known_calls)

    def start(self, event: TurnEvent, data: turn_event.TurnStartedEvent) -> list[Chunk]:
        metadata = {"turnId": event.turn_id, "conversationId": data.conversation_id, "agent": data.agent}
        return [chunks.start(event.turn_id, metadata), START_STEP]

    def text(self, event: TurnEvent, data: turn_event.MessageDeltaEvent) -> list[Chunk]:
        text = data.text
        self._answer_length += len(text)
        if self._text_id is not None:
            return [chunks.text_delta(self._text_id, text)]
        # The log separates a text from the one before the calls by a blank line.
        text = text.lstrip("\n") if self._follows_calls else text
        if not text:
            return []
        self._text_id = f"{event.turn_id}-{event.seq}"
        start: Chunk = {"type": "text-start", "id": self._text_id}
        return [*self._begin_step(), start, chunks.text_delta(self._text_id, text)]

    def withdraw(self, _: TurnEvent, data: turn_event.MessageWithdrawnEvent) -> list[Chunk]:
        if data.length < self._answer_length:
            raise StreamBroken("Text of this stream was withdrawn: resume the stream.")
        return []

    def tool_call(self, _: TurnEvent, call: turn_event.ToolCallStartedEvent) -> list[Chunk]:
        self._follows_calls = True
        return [*self._end_text(), *self._begin_step(), *self._calls.begin(call)]

    def request_approval(self, _: TurnEvent, data: turn_event.ApprovalRequestedEvent) -> list[Chunk]:
        return self._calls.request_approval(data)

    def decide(self, _: TurnEvent, data: turn_event.ApprovalDecidedEvent) -> list[Chunk]:
        return self._calls.decide(data)

    def tool_result(self, _: TurnEvent, call: turn_event.ToolCallCompletedEvent) -> list[Chunk]:
        result = self._calls.complete(call)
        self._has_answered_calls = self._calls.are_answered
        return result

    def wait(self, _: TurnEvent, __: turn_event.TurnWaitingEvent) -> list[Chunk]:
        return [*self._end_text()]

    def artifact(self, _: TurnEvent, artifact: ArtifactReference) -> list[Chunk]:
        return [*self._end_text(), chunks.artifact_data(artifact)]

    def complete(self, _: TurnEvent, data: turn_event.TurnCompletedEvent) -> list[Chunk]:
        metadata = {"status": "completed", "messageId": data.message_id, "usage": data.usage}
        return [*self._end(NO_RESULT), FINISH_STEP, chunks.finish(metadata)]

    def cancel(self, _: TurnEvent, __: turn_event.TurnCancelledEvent) -> list[Chunk]:
        return [*self._end(CANCELLED), chunks.ABORT, chunks.finish({"status": "cancelled"})]

    def interrupt(self, event: TurnEvent, _: turn_event.TurnInterruptedEvent) -> list[Chunk]:
        return self.fail(event, turn_event.TurnFailedEvent(TurnInterrupted.code, INTERRUPTED), "interrupted")

    def fail(self, _: TurnEvent, data: turn_event.TurnFailedEvent, status: str = "failed") -> list[Chunk]:
        return [*self._end(NO_RESULT), *chunks.failure(status, data.code, data.detail)]

    def _begin_step(self) -> tuple[Chunk, ...]:
        """Begin another step after calls that all have results.

        Early releases of ai 5 send the message again without end if the last step has calls and all have succeeded.
        """
        is_answered, self._has_answered_calls = self._has_answered_calls, False
        return (FINISH_STEP, START_STEP) if is_answered else ()

    def _end_text(self) -> tuple[Chunk, ...]:
        id, self._text_id = self._text_id, None
        return () if id is None else ({"type": "text-end", "id": id},)

    def _end(self, error: str) -> list[Chunk]:
        """End the text, a step with answered calls, and the calls without a result."""
        return [*self._end_text(), *self._begin_step(), *self._calls.close(error)]


_TRANSLATIONS: dict[type, Callable[[UIMessageTranslator, TurnEvent, Any], list[Chunk]]] = {
    turn_event.TurnStartedEvent: UIMessageTranslator.start,
    turn_event.MessageDeltaEvent: UIMessageTranslator.text,
    turn_event.MessageWithdrawnEvent: UIMessageTranslator.withdraw,
    turn_event.ToolCallStartedEvent: UIMessageTranslator.tool_call,
    turn_event.ToolCallCompletedEvent: UIMessageTranslator.tool_result,
    turn_event.ApprovalRequestedEvent: UIMessageTranslator.request_approval,
    turn_event.ApprovalDecidedEvent: UIMessageTranslator.decide,
    turn_event.TurnWaitingEvent: UIMessageTranslator.wait,
    ArtifactReference: UIMessageTranslator.artifact,
    turn_event.TurnCompletedEvent: UIMessageTranslator.complete,
    turn_event.TurnCancelledEvent: UIMessageTranslator.cancel,
    turn_event.TurnFailedEvent: UIMessageTranslator.fail,
    turn_event.TurnInterruptedEvent: UIMessageTranslator.interrupt,
}
