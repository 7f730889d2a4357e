"""Encodes answers for OpenAI's Responses API: the events with the content, and the events that end it."""

import json
from typing import Any
from uuid import uuid4

from tests.fakes.model_script import Answer

Events = list[tuple[str, dict[str, Any]]]


def responses_events(answer: Answer) -> tuple[list[bytes], list[bytes]]:
    messages = [_message("".join(answer.pieces))] if answer.pieces else []
    output = [*messages, *(_call(*call) for call in answer.calls)]
    typed_events: Events = [("response.created", {"response": _response("in_progress", [], None)})]
    for index, item in enumerate(output):
        typed_events += _message_events(index, item, answer.pieces) if item in messages else _call_events(index, item)
    typed_events.append(("response.completed", {"response": _response("completed", output, answer.tokens)}))
    events = [_event(number, event_type, data) for number, (event_type, data) in enumerate(typed_events)]
    return events[:-1], events[-1:]


def _message_events(index: int, item: dict[str, Any], pieces: tuple[str, ...]) -> Events:
    (part,) = item["content"]
    position = {"item_id": item["id"], "output_index": index, "content_index": 0}
    deltas = [("response.output_text.delta", {**position, "delta": piece, "logprobs": []}) for piece in pieces]
    return [
        ("response.output_item.added", {"output_index": index, "item": item | {"content": []}}),
        ("response.content_part.added", {**position, "part": part | {"text": ""}}),
        *deltas,
        ("response.output_text.done", {**position, "text": part["text"], "logprobs": []}),
        ("response.content_part.done", {**position, "part": part}),
        ("response.output_item.done", {"output_index": index, "item": item}),
    ]


def _call_events(index: int, item: dict[str, Any]) -> Events:
    position = {"item_id": item["id"], "output_index": index}
    return [
        ("response.output_item.added", {"output_index": index, "item": item | {"arguments": ""}}),
        ("response.function_call_arguments.delta", {**position, "delta": item["arguments"]}),
        ("response.function_call_arguments.done", {**position, "arguments": item["arguments"], "name": item["name"]}),
        ("response.output_item.done", {"output_index": index, "item": item}),
    ]


def _message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": [part]}


def _call(name: str, arguments: str) -> dict[str, Any]:
    ids = {"id": _id("fc"), "call_id": _id("call")}
    return {"type": "function_call", **ids, "name": name, "arguments": arguments, "status": "completed"}


def _response(status: str, output: list[dict[str, Any]], tokens: tuple[int, int] | None) -> dict[str, Any]:
    response = {"id": "resp_1", "object": "response", "created_at": 0, "model": "fake", "status": status}
    settings = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {**response, **settings, "output": output, "usage": tokens and _usage(*tokens)}


def _usage(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }


def _event(number: int, event_type: str, data: dict[str, Any]) -> bytes:
    text = json.dumps({"type": event_type, "sequence_number": number, **data})
    return f"event: {event_type}\ndata: {text}\n\n".encode()


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
