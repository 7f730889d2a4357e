"""Encodes an answer or a tool call as server-sent events of OpenAI's Responses API."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from msgspec.json import encode

_WORD = re.compile(r"\s*\S+\s*")


def text_events(text: str) -> Iterator[bytes]:
    """An answer with one delta for each word."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": [part]}
    position = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    deltas = (
        ("response.output_text.delta", {**position, "delta": word, "logprobs": []}) for word in _WORD.findall(text)
    )
    yield from _events(
        message,
        ("response.output_item.added", {"output_index": 0, "item": message | {"content": [], "status": "in_progress"}}),
        ("response.content_part.added", {**position, "part": part | {"text": ""}}),
        *deltas,
        ("response.output_text.done", {**position, "text": text, "logprobs": []}),
        ("response.content_part.done", {**position, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
    )


def call_events(name: str, arguments: str) -> Iterator[bytes]:
    """A tool call. The arguments are sent unchanged, also if they are not JSON."""
    call = {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), "name": name, "status": "completed"}
    position = {"item_id": call["id"], "output_index": 0}
    in_progress = call | {"arguments": "", "status": "in_progress"}
    completed = call | {"arguments": arguments}
    yield from _events(
        completed,
        ("response.output_item.added", {"output_index": 0, "item": in_progress}),
        ("response.function_call_arguments.delta", {**position, "delta": arguments}),
        ("response.function_call_arguments.done", {**position, "arguments": arguments, "name": name}),
        ("response.output_item.done", {"output_index": 0, "item": completed}),
    )


def _events(item: dict[str, Any], *content_events: tuple[str, dict[str, Any]]) -> Iterator[bytes]:
    id_ = _id("resp")
    created = ("response.created", {"response": _response(id_, "in_progress", [])})
    completed = ("response.completed", {"response": _response(id_, "completed", [item])})
    for number, (event_type, data) in enumerate([created, *content_events, completed]):
        event = encode({"type": event_type, "sequence_number": number, **data})
        yield b"event: %s\ndata: %s\n\n" % (event_type.encode(), event)


def _response(id_: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    """Reports no tokens, because no model was used."""
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
