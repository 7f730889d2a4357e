"""The messages of a chat as the AI SDK keeps them: made by the translator of the stream, so that a reload changes none.

Pages read them with `GET`. Messages that pages post are not stored.
"""

from typing import Any

from latchkey.application.turns.log import ConversationLog, TurnLog
from latchkey.domain.turn_event import TurnEvent, without_withdrawn
from latchkey.interfaces.http.frontends.ai_sdk.chunks import APPROVAL_RESPONSE, Chunk
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator

UIMessage = dict[str, Any]
Part = dict[str, Any]


def ui_messages(log: ConversationLog, *, has_approvals: bool = True) -> list[UIMessage]:
    """Return the messages of the turns. A running turn has its user's message only: its stream brings the other.

    Without `has_approvals` they are those of ai 5.
    """
    messages: list[UIMessage] = []
    for turn in log.turns:
        messages.append(_user_message(turn))
        if message := assistant_message(turn.events, has_approvals=has_approvals):
            messages.append(message)
    return messages


def _user_message(turn: TurnLog) -> UIMessage:
    return {
        "id": turn.message_id,
        "role": "user",
        "metadata": {"turnId": turn.turn.id, "createdAt": turn.message.created_at},
        "parts": [{"type": "text", "text": turn.message.content}],
    }


def assistant_message(events: list[TurnEvent], *, has_approvals: bool = True) -> UIMessage | None:
    """Return the message that a client builds from the stream of a turn; None if it has no text, call or artifact."""
    translator, reducer = UIMessageTranslator(has_approvals=has_approvals), _UIMessageReducer()
    for event in without_withdrawn(events):
        reducer.apply(translator.chunks_of(event))
    reducer.apply(translator.last_chunks())
    return reducer.message()


class _UIMessageReducer:
    """Applies the chunks of a stream to a message, as `processUIMessageStream` of the AI SDK does."""

    def __init__(self) -> None:
        self._id: Any = None
        self._metadata: dict[str, Any] = {}
        self._parts: list[Part] = []
        self._text: list[str] = []
        self._by_id: dict[Any, Part] = {}
        """The parts of tool calls and artifacts."""

    def message(self) -> UIMessage | None:
        if all(part["type"] == "step-start" for part in self._parts):
            return None
        return {"id": self._id, "role": "assistant", "metadata": self._metadata, "parts": self._parts}

    def apply(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._apply(chunk)

    def _apply(self, chunk: Chunk) -> None:
        match chunk["type"]:
            case "text-delta":
                self._text.append(chunk["delta"])
            case "start" | "message-metadata" | "finish":
                self._id = chunk.get("messageId", self._id)
                self._metadata |= chunk.get("messageMetadata", {})
            case "start-step":
                self._parts.append({"type": "step-start"})
            case "text-start":
                self._text = []
            case "text-end":
                self._parts.append({"type": "text", "text": "".join(self._text), "state": "done"})
            case "data-artifact":
                self._put_data(chunk)
            case _ if "toolCallId" in chunk:
                self._apply_to_call(self._by_id.get(chunk["toolCallId"]), chunk)
            case type if type == APPROVAL_RESPONSE:
                part = self._by_id[chunk["approvalId"]]
                part["state"] = "approval-responded"
                part["approval"] |= {name: chunk[name] for name in ("approved", "reason") if name in chunk}

    def _apply_to_call(self, part: Part | None, chunk: Chunk) -> None:
        if part is None:
            self._by_id[chunk["toolCallId"]] = part = _tool_part(chunk)
            self._parts.append(part)
            return
        match chunk["type"]:
            case "tool-approval-request":
                part |= {"state": "approval-requested", "approval": {"id": chunk["approvalId"]}}
            case "tool-output-available":
                part |= {"state": "output-available", "output": chunk["output"]}
            case "tool-output-error":
                part |= {"state": "output-error", "errorText": chunk["errorText"]}
            case "tool-output-denied":
                part |= {"state": "output-denied"}

    def _put_data(self, chunk: Chunk) -> None:
        """Add a part for an artifact. A further version of the artifact replaces the data of its part."""
        if part := self._by_id.get(chunk["id"]):
            part["data"] = chunk["data"]
        else:
            self._by_id[chunk["id"]] = part = dict(chunk)
            self._parts.append(part)


def _tool_part(chunk: Chunk) -> Part:
    return {
        "type": f"tool-{chunk['toolName']}",
        "toolCallId": chunk["toolCallId"],
        "state": "input-available",
        "input": chunk["input"],
        "providerExecuted": True,
    }
