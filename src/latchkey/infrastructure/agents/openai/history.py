"""Earlier turns, and earlier steps of the current turn, as items of OpenAI's APIs."""

from collections.abc import Sequence

from agents import TResponseInputItem

from latchkey.domain.agent import PastStep
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall
from latchkey.infrastructure.agents.toolset import result_text


def input_items(history: list[PastTurn]) -> list[TResponseInputItem]:
    """The items of the earlier turns, oldest first."""
    return [item for turn in history for item in _turn_items(turn)]


def _turn_items(turn: PastTurn) -> list[TResponseInputItem]:
    items: list[TResponseInputItem] = [{"role": "user", "content": turn.message}]
    for call in turn.tool_calls:
        items += _call_items(call)
    if turn.answer is not None:
        # llama.cpp takes a message of the assistant only with a type.
        items.append({"type": "message", "role": "assistant", "content": turn.answer})
    return items


def step_items(steps: Sequence[PastStep]) -> list[TResponseInputItem]:
    """The items of steps of the current turn: texts, calls and results."""
    items: list[TResponseInputItem] = []
    for step in steps:
        if text := step.text.strip("\n"):
            items.append({"type": "message", "role": "assistant", "content": text})
        for call in step.tool_calls:
            items += _call_items(call)
    return items


def _call_items(call: ToolCall) -> list[TResponseInputItem]:
    call_id = str(call.id)
    arguments = bytes(call.arguments).decode() if call.has_arguments else "{}"
    return [
        {"type": "function_call", "call_id": call_id, "name": call.name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": result_text(call)},
    ]
