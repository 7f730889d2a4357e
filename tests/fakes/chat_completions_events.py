"""Encodes answers for OpenAI's Chat Completions API: the events with the content, and the events that end it."""

import json
from typing import Any
from uuid import uuid4

from tests.fakes.model_script import Answer


def chat_events(answer: Answer) -> tuple[list[bytes], list[bytes]]:
    chunks = [_chunk({"role": "assistant", "content": ""})]
    chunks += [_chunk({"content": piece}) for piece in answer.pieces]
    for index, (name, arguments) in enumerate(answer.calls):
        call = {"index": index, "id": f"call_{uuid4().hex}", "type": "function"}
        chunks.append(_chunk({"tool_calls": [call | {"function": {"name": name, "arguments": ""}}]}))
        chunks.append(_chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
    last_chunk = _chunk({}, "tool_calls" if answer.calls else "stop")
    return chunks, [last_chunk, _event(_envelope([]) | {"usage": _usage(answer.tokens)}), b"data: [DONE]\n\n"]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event(_envelope([{"index": 0, "delta": delta, "finish_reason": finish}]))


def _envelope(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl_1", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": choices}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % json.dumps(data).encode()


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
