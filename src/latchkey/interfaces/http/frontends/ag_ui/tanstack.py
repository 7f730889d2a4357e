"""The messages of a thread in the shape of TanStack AI, whose client loads them by `GET ?threadId=`."""

from typing import Any

import msgspec

from latchkey.application.turns.log import ConversationLog
from latchkey.interfaces.http.frontends.ag_ui.history import AgUiMessage, thread_messages

_Part = dict[str, Any]


def hydration(log: ConversationLog) -> dict[str, Any]:
    """Return the thread as TanStack's `hydrate` reads it, with the run to be joined and a cursor for earlier turns."""
    runs = (turn.turn.request.run_id or str(turn.turn.id) for turn in log.turns if turn.turn.id == log.running_turn_id)
    return {
        "messages": _ui_messages(thread_messages(log)),
        "activeRun": next(({"runId": run_id} for run_id in runs), None),
        "interrupts": None,
        "page": {"truncated": True, "cursor": log.turns[0].turn.id} if log.has_more else {"truncated": False},
    }


def _ui_messages(messages: list[AgUiMessage]) -> list[dict[str, Any]]:
    """Return the messages with parts. The result of a tool call is a part beside the call, and its output."""
    shown: list[dict[str, Any]] = []
    calls: dict[str, tuple[list[_Part], _Part]] = {}
    for message in messages:
        if message["role"] == "tool":
            parts, call = calls[message["toolCallId"]]
            call |= {"state": "complete", "output": msgspec.json.decode(message["content"])}
            parts.append(_result_part(message))
            continue
        parts = [{"type": "text", "content": message["content"]}] if "content" in message else []
        for call in map(_call_part, message.get("toolCalls", [])):
            parts.append(call)
            calls[call["id"]] = parts, call
        shown.append({"id": message["id"], "role": message["role"], "parts": parts})
    return shown


def _call_part(call: dict[str, Any]) -> _Part:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    return {
        "type": "tool-call",
        "id": call["id"],
        "name": name,
        "arguments": arguments,
        "state": "input-complete",
        "input": msgspec.json.decode(arguments),
    }


def _result_part(message: AgUiMessage) -> _Part:
    return {
        "type": "tool-result",
        "toolCallId": message["toolCallId"],
        "content": message["content"],
        "state": "complete",
    }
