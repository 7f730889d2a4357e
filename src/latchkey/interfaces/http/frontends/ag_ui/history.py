"""The messages of a thread as AG-UI clients keep them, made by the translator of the stream: a reload changes none."""

from typing import Any

from latchkey.application.turns.log import ConversationLog, TurnLog
from latchkey.domain.turn_event import TurnEvent, without_withdrawn
from latchkey.interfaces.http.frontends.ag_ui.interrupts import Interrupt
from latchkey.interfaces.http.frontends.ag_ui.run import AgUiEvent, Run
from latchkey.interfaces.http.frontends.ag_ui.translator import AgUiTranslator

AgUiMessage = dict[str, Any]


def thread_messages(log: ConversationLog) -> list[AgUiMessage]:
    """Return the messages of the turns. A running turn has its user's message only: its stream brings the others."""
    messages: list[AgUiMessage] = []
    for turn in log.turns:
        messages.append(_user_message(turn))
        messages += answer_messages(turn.events)
    return messages


def answer_messages(events: list[TurnEvent]) -> list[AgUiMessage]:
    """Return the messages that a client builds from the stream of a turn."""
    translator, reducer = AgUiTranslator(Run("", "")), MessageReducer()
    for event in without_withdrawn(events):
        for translated in translator.events(event):
            reducer.apply(translated)
    return reducer.messages


def open_interrupts(log: ConversationLog) -> list[Interrupt]:
    """Return the open questions of the newest turn if it waits for the user."""
    if not log.turns or log.turns[-1].turn.status != "waiting":
        return []
    translator = AgUiTranslator(Run("", ""))
    for event in log.turns[-1].events:
        translator.translate(event)
    return translator.interrupts


def _user_message(turn: TurnLog) -> AgUiMessage:
    return {"id": turn.message_id, "role": "user", "content": turn.message.content}


class MessageReducer:
    """Applies the events of a run to messages, as `defaultApplyEvents` of `@ag-ui/client` does."""

    def __init__(self) -> None:
        self.messages: list[AgUiMessage] = []
        self._text: list[str] = []
        self._assistant: dict[str, AgUiMessage] = {}
        self._owner: dict[Any, AgUiMessage] = {}
        """The message of each tool call."""

    def apply(self, event: AgUiEvent) -> None:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                self._text = []
                self._message(event["messageId"])["content"] = ""
            case "TEXT_MESSAGE_CONTENT":
                self._text.append(event["delta"])
            case "TEXT_MESSAGE_END":
                self._message(event["messageId"])["content"] = "".join(self._text)
            case "TOOL_CALL_START":
                self._add_call(event)
            case "TOOL_CALL_ARGS":
                self._owner[event["toolCallId"]]["toolCalls"][-1]["function"]["arguments"] = event["delta"]
            case "TOOL_CALL_RESULT":
                self._add_result(event)

    def _message(self, id: str) -> AgUiMessage:
        if id not in self._assistant:
            self._assistant[id] = {"id": id, "role": "assistant"}
            self.messages.append(self._assistant[id])
        return self._assistant[id]

    def _add_call(self, event: AgUiEvent) -> None:
        id, name = event["toolCallId"], event["toolCallName"]
        message = self._message(event["parentMessageId"])
        message.setdefault("toolCalls", []).append({"id": id, "type": "function", "function": {"name": name}})
        self._owner[id] = message

    def _add_result(self, event: AgUiEvent) -> None:
        """Insert the result after the message of its call and its other results: a text may have followed."""
        index, owner = len(self.messages), self._owner[event["toolCallId"]]
        while self.messages[index - 1] is not owner:
            index -= 1
        while index < len(self.messages) and self.messages[index]["role"] == "tool":
            index += 1
        message = {"id": event["messageId"], **{name: event[name] for name in ("role", "toolCallId", "content")}}
        if metadata := event.get("metadata"):
            message["metadata"] = metadata
        self.messages.insert(index, message)
