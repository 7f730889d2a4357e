"""A conversation as the OpenAI Agents SDK takes it: plain input items, tool calls and their results among them."""

from agents import TResponseInputItem

from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall

NO_RESULT = "no result recorded"


def input_items(history: list[PastTurn]) -> list[TResponseInputItem]:
    """Everything that was said before, oldest first."""
    return [item for turn in history for item in _turn_items(turn)]


def _turn_items(turn: PastTurn) -> list[TResponseInputItem]:
    items: list[TResponseInputItem] = [{"role": "user", "content": turn.message}]
    for call in turn.tool_calls:
        items += _call_items(call)
    if turn.answer is not None:
        items.append({"role": "assistant", "content": turn.answer})
    return items


def _call_items(call: ToolCall) -> list[TResponseInputItem]:
    call_id = str(call.id)
    arguments = bytes(call.arguments).decode() if call.has_arguments else "{}"
    return [
        {"type": "function_call", "call_id": call_id, "name": call.name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": result_of(call)},
    ]


def result_of(call: ToolCall) -> str:
    """The JSON as it is stored, or what to say where there is none: a turn broke before its last call had a result."""
    return bytes(call.result).decode() if call.has_result else NO_RESULT
