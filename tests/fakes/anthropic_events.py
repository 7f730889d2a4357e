"""Encodes answers for Anthropic's Messages API: as events (the content, then the end), or as one message."""

import json
from typing import Any
from uuid import uuid4

from tests.fakes.model_script import Answer, Reply, calls

TOOL_PREFIX = "mcp__latchkey__"
"""The Claude CLI puts this before the names of our tools."""


def anthropic_events(answer: Answer) -> tuple[list[bytes], list[bytes]]:
    tokens_in, tokens_out = answer.tokens
    content = [_event("message_start", message=_message([], None, (tokens_in, 1)))]
    if answer.pieces:
        content += _block(
            0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in answer.pieces)
        )
    for index, (name, arguments) in enumerate(answer.calls, bool(answer.pieces)):
        block = {"type": "tool_use", "id": _id("toolu"), "name": TOOL_PREFIX + name, "input": {}}
        content += _block(index, block, {"type": "input_json_delta", "partial_json": arguments})
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return content, [_event("message_delta", delta=delta, usage={"output_tokens": tokens_out}), _event("message_stop")]


def anthropic_message(answer: Answer) -> bytes:
    """The answer in one piece, for a request without streaming."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(answer.pieces)}] if answer.pieces else []
    content += [
        {"type": "tool_use", "id": _id("toolu"), "name": TOOL_PREFIX + name, "input": json.loads(arguments)}
        for name, arguments in answer.calls
    ]
    return json.dumps(_message(content, _stop_reason(answer), answer.tokens)).encode()


def built_in_tool_call(tool: str, arguments: str) -> Reply:
    """A call of a built-in tool of the Claude CLI."""
    content, end = anthropic_events(calls((tool, arguments)))
    body = b"".join([*content, *end]).replace(f"{TOOL_PREFIX}{tool}".encode(), tool.encode())
    return Reply(200, body, "text/event-stream")


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    return [
        _event("content_block_start", index=index, content_block=block),
        *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _event("content_block_stop", index=index),
    ]


def _message(content: list[dict[str, Any]], stop_reason: str | None, tokens: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": "claude-fake",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }


def _stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"


def _event(event_type: str, **data: Any) -> bytes:
    return f"event: {event_type}\ndata: {json.dumps({'type': event_type, **data})}\n\n".encode()


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
