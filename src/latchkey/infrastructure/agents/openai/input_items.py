"""A conversation as input items of the OpenAI Agents SDK: messages, tool calls and their results."""

from agents import TResponseInputItem

from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall
from latchkey.infrastructure.agents.tool_results import result_text


def input_items(history: list[PastTurn]) -> list[TResponseInputItem]:
    """The items of the earlier turns, oldest first."""
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
        {"type": "function_call_output", "call_id": call_id, "output": result_text(call)},
    ]
