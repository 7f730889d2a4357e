"""The messages of a chat as the AI SDK keeps them: made by the translator of the stream, so that a reload changes none.

Pages read them with `GET`. Messages that pages post are not stored.
"""

from collections.abc import Iterable
from typing import Any

from latchkey.application.turns.log import ConversationLog, TurnLog
from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.ai_sdk.translator import Chunk, UIMessageTranslator

UIMessage = dict[str, Any]
Part = dict[str, Any]


def ui_messages(log: ConversationLog) -> list[UIMessage]:
    """Return the messages of the turns. A running turn has its user's message only: its stream brings the other."""
    messages: list[UIMessage] = []
    for turn in log.turns:
        messages.append(_user_message(turn))
        if message := assistant_message(turn.events):
            messages.append(message)
    return messages


def _user_message(turn: TurnLog) -> UIMessage:
    return {
        "id": turn.message_id,
        "role": "user",
        "metadata": {"turnId": turn.turn.id, "createdAt": turn.message.created_at},
        "parts": [{"type": "text", "text": turn.message.content}],
    }


def assistant_message(events: Iterable[TurnEvent]) -> UIMessage | None:
    """Return the message that a client builds from the stream of a turn; None if it has no text, call or artifact."""
    translator, reducer = UIMessageTranslator(), _UIMessageReducer()
    for event in events:
        for chunk in translator.chunks(event):
            reducer.apply(chunk)
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

    def apply(self, chunk: Chunk) -> None:
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
            case "tool-input-available":
                part = _tool_part(chunk)
                self._parts.append(part)
                self._by_id[chunk["toolCallId"]] = part
            case "tool-output-available":
                self._by_id[chunk["toolCallId"]] |= {"state": "output-available", "output": chunk["output"]}
            case "tool-output-error":
                self._by_id[chunk["toolCallId"]] |= {"state": "output-error", "errorText": chunk["errorText"]}
            case "data-artifact":
                self._put_data(chunk)

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
