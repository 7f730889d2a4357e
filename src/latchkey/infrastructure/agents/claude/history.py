"""A conversation as the Claude CLI takes it: lines in the roles that they were said in, tool calls among them.

A line of the user's that is not meant to be answered is confirmed by an empty result, and what follows must
wait for that: the CLI takes the assistant's lines at once, and would put them first. `client_composed` makes it
leave a text as it is: no file that the text names is read, and no command in it is run.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

from latchkey.domain.agent import AgentRun
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall
from latchkey.infrastructure.agents.claude.cli import tool_name
from latchkey.infrastructure.agents.history import result_of

Line = dict[str, Any]


def exchanges(agent_run: AgentRun) -> Iterator[list[Line]]:
    """The lines, up to each one that is confirmed. The last of them is what the person says now.

    The first is empty: it leaves no trace in the conversation, and makes the CLI tell which tools it has.
    """
    waiting: list[Line] = []
    for line in _lines(agent_run):
        waiting.append(line)
        if line["type"] == "user":
            yield waiting
            waiting = []


def _lines(agent_run: AgentRun) -> Iterator[Line]:
    yield _said_by_user([], shouldQuery=False)
    for turn in agent_run.history:
        yield from _turn_lines(turn)
    yield _said_by_user(agent_run.message)


def _turn_lines(turn: PastTurn) -> Iterator[Line]:
    yield _said_by_user(turn.message, shouldQuery=False)
    for call in turn.tool_calls:
        yield from _call_lines(call)
    if turn.answer is not None and turn.answer.strip():  # a blank text is refused by the model's server
        yield _said_by_assistant({"type": "text", "text": turn.answer})


def _call_lines(call: ToolCall) -> Iterator[Line]:
    used = {"type": "tool_use", "id": str(call.id), "name": tool_name(call.name), "input": _arguments(call.arguments)}
    result = {
        "type": "tool_result",
        "tool_use_id": str(call.id),
        "content": result_of(call),
        "is_error": call.is_error,
    }
    yield _said_by_assistant(used)
    yield _said_by_user([result], shouldQuery=False)


def _said_by_user(content: str | list[Line], **more: bool) -> Line:
    return {"type": "user", "message": {"role": "user", "content": content}, "client_composed": True, **more}


def _said_by_assistant(block: Line) -> Line:
    return {"type": "assistant", "message": {"role": "assistant", "content": [block]}}


def _arguments(json: Raw) -> Line:
    """An object, which is all that the model's server takes."""
    try:
        return msgspec.json.decode(json, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
