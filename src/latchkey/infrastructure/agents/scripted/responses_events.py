"""What a model says, as the server-sent events of OpenAI's Responses API."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from msgspec.json import encode

_WORD = re.compile(r"\s*\S+\s*")


def text_events(text: str) -> Iterator[bytes]:
    """An answer, word by word."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": [part]}
    at = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    deltas = (("response.output_text.delta", {**at, "delta": word, "logprobs": []}) for word in _WORD.findall(text))
    yield from _events(
        message,
        ("response.output_item.added", {"output_index": 0, "item": message | {"content": [], "status": "in_progress"}}),
        ("response.content_part.added", {**at, "part": part | {"text": ""}}),
        *deltas,
        ("response.output_text.done", {**at, "text": text, "logprobs": []}),
        ("response.content_part.done", {**at, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
    )


def call_events(name: str, arguments: str) -> Iterator[bytes]:
    """A tool call; the arguments go as they are, JSON or not."""
    call = {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), "name": name, "status": "completed"}
    at = {"item_id": call["id"], "output_index": 0}
    opened = call | {"arguments": "", "status": "in_progress"}
    done = call | {"arguments": arguments}
    yield from _events(
        done,
        ("response.output_item.added", {"output_index": 0, "item": opened}),
        ("response.function_call_arguments.delta", {**at, "delta": arguments}),
        ("response.function_call_arguments.done", {**at, "arguments": arguments, "name": name}),
        ("response.output_item.done", {"output_index": 0, "item": done}),
    )


def _events(item: dict[str, Any], *said: tuple[str, dict[str, Any]]) -> Iterator[bytes]:
    id_ = _id("resp")
    opening = ("response.created", {"response": _response(id_, "in_progress", [])})
    closing = ("response.completed", {"response": _response(id_, "completed", [item])})
    for number, (kind, data) in enumerate([opening, *said, closing]):
        event = encode({"type": kind, "sequence_number": number, **data})
        yield b"event: %s\ndata: %s\n\n" % (kind.encode(), event)


def _response(id_: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    """It has used no tokens: nobody thought."""
    return {
        "id": id_,
        "object": "response",
        "created_at": 0,
        "model": "rehearsal",
        "status": status,
        "output": output,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
    }


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
