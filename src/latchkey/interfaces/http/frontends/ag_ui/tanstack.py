"""The messages of a thread in the shape of TanStack AI, whose client loads them by `GET ?threadId=`."""

from typing import Any

import msgspec

from latchkey.application.turns.log import ConversationLog, TurnLog
from latchkey.domain.turn_event import TurnEvent, without_withdrawn
from latchkey.interfaces.http.frontends.ag_ui.history import open_interrupts
from latchkey.interfaces.http.frontends.ag_ui.run import AgUiEvent, Run
from latchkey.interfaces.http.frontends.ag_ui.translator import AgUiTranslator

UiMessage = dict[str, Any]


def hydration(log: ConversationLog) -> dict[str, Any]:
    """Return the thread as TanStack's `hydrate` reads it: with the run to join, open questions, and a cursor."""
    running = next((_run_id(turn) for turn in log.turns if turn.turn.id == log.running_turn_id), None)
    interrupts = open_interrupts(log)
    return {
        "messages": [message for turn in log.turns for message in (_user_message(turn), *ui_messages(turn.events))],
        "activeRun": {"runId": running} if running else None,
        "interrupts": {"runId": _run_id(log.turns[-1]), "pending": interrupts} if interrupts else None,
        "page": {"truncated": True, "cursor": log.turns[0].turn.id} if log.has_more else {"truncated": False},
    }


def _run_id(turn: TurnLog) -> str:
    return turn.turn.run_id or str(turn.turn.id)


def ui_messages(events: list[TurnEvent]) -> list[UiMessage]:
    """Return the messages that the client builds from the stream of a turn."""
    translator, reducer = AgUiTranslator(Run("", "")), _MessageReducer()
    for event in without_withdrawn(events):
        for translated in translator.events(event):
            reducer.apply(translated)
    for interrupt in translator.interrupts:
        reducer.request_approval(interrupt["id"])
    return reducer.messages


def _user_message(turn: TurnLog) -> UiMessage:
    return {"id": turn.message_id, "role": "user", "parts": [{"type": "text", "content": turn.message.content}]}


class _MessageReducer:
    """Applies the events of a run to messages, as `StreamProcessor` of `@tanstack/ai` does.

    A call of an unknown message is added to the newest message. A message that begins with a call gets the id of its
    first text.
    """

    def __init__(self) -> None:
        self.messages: list[UiMessage] = []
        self._is_named = True
        self._text_part: dict[str, Any] = {}
        self._text: list[str] = []
        self._calls: dict[Any, tuple[UiMessage, dict[str, Any]]] = {}

    def apply(self, event: AgUiEvent) -> None:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                self._begin_text(event["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                self._text.append(event["delta"])
            case "TEXT_MESSAGE_END":
                self._text_part["content"] = "".join(self._text)
            case "TOOL_CALL_START":
                self._add_call(event)
            case "TOOL_CALL_ARGS":
                arguments = event["delta"]
                self._calls[event["toolCallId"]][1].update(arguments=arguments, input=msgspec.json.decode(arguments))
            case "TOOL_CALL_RESULT":
                message, call = self._calls[event["toolCallId"]]
                content = event["content"]
                call.update(state="complete", output=msgspec.json.decode(content))
                result = {"toolCallId": event["toolCallId"], "content": content, "state": "complete"}
                message["parts"].append({"type": "tool-result", **result})

    def request_approval(self, id: Any) -> None:
        """Show that a call needs approval, as the client does for an interrupt."""
        self._calls[id][1].update(state="approval-requested", approval={"id": id, "needsApproval": True})

    def _begin_text(self, id: str) -> None:
        if self._is_named:
            self.messages.append({"id": id, "role": "assistant", "parts": []})
        self._is_named = True
        self.messages[-1]["id"] = id
        self._text_part, self._text = {"type": "text", "content": ""}, []
        self.messages[-1]["parts"].append(self._text_part)

    def _add_call(self, event: AgUiEvent) -> None:
        if not self.messages:
            self.messages.append({"id": event["parentMessageId"], "role": "assistant", "parts": []})
            self._is_named = False
        call = {"type": "tool-call", "id": event["toolCallId"], "name": event["toolCallName"]}
        self.messages[-1]["parts"].append(call)
        self._calls[event["toolCallId"]] = self.messages[-1], call
