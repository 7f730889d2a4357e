"""A fast scripted model server with the OpenAI Responses API: `python -m bench.model PORT`.

The answer depends only on the last user message: for "add 1 task" (or N) it calls `add_task` that many times, and
answers the results with "Done: 1 tool call(s).". It answers anything else with "You said: ...".
"""

import re
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import uvicorn

_ADD = re.compile(r"\badd (\d+) tasks?\b", re.IGNORECASE)
_WORDS = re.compile(r"\S+\s*")
_numbers = count(1)
_dumps, _loads = msgspec.json.encode, msgspec.json.decode

USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 20,
}


def items(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The output items: tool calls, or one message."""
    given = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    last = max(number for number, item in enumerate(given) if item.get("role") == "user")
    asked, done = _text(given[last]["content"]), sum("output" in item for item in given[last + 1 :])
    if (wanted := _ADD.search(asked)) and done < int(wanted[1]):
        return [_call("add_task", {"title": f"task {number + 1}"}) for number in range(int(wanted[1]))]
    return [_message(f"Done: {done} tool call(s)." if done else f"You said: {asked[:200]}")]


def answer(body: dict[str, Any]) -> bytes:
    return _dumps(_response(_fresh("resp"), "completed", items(body)))


def stream(body: dict[str, Any]) -> bytes:
    """The answer as server-sent events."""
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _dumps({**event, "sequence_number": number}))
        for number, event in enumerate(_events(items(body)))
    )


def _events(output: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    ident = _fresh("resp")
    yield {"type": "response.created", "response": _response(ident, "in_progress", [])}
    for index, item in enumerate(output):
        at = {"output_index": index, "item_id": item["id"]}
        empty: dict[str, Any] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        opened = {**item, **empty, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": opened}
        yield from _said(item, at)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": _response(ident, "completed", output)}


def _said(item: dict[str, Any], at: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        arguments = item["arguments"]
        yield {"type": "response.function_call_arguments.delta", **at, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", **at, "arguments": arguments, "name": item["name"]}
        return
    part, at = item["content"][0], {**at, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for word in _WORDS.findall(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    ids = {"id": _fresh("fc"), "call_id": _fresh("call")}
    return {
        "type": "function_call",
        **ids,
        "name": name,
        "arguments": _dumps(arguments).decode(),
        "status": "completed",
    }


def _message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": _fresh("msg"), "role": "assistant", "status": "completed", "content": [part]}


def _response(ident: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "instructions": None,
        "metadata": {},
        "model": "fake",
        "parallel_tool_calls": True,
        "temperature": 1.0,
    }
    more = {"tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": USAGE if status == "completed" else None}
    trouble = {"error": None, "incomplete_details": None}
    head = {"id": ident, "object": "response", "created_at": 0, "status": status}
    return {**head, **trouble, **asked, "output": output, **more}


def _fresh(prefix: str) -> str:
    return f"{prefix}_{next(_numbers):08d}"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body")
    request = _loads(body)
    if request.get("stream"):  # chunked like a stream, but sent at once
        headers, payload = [(b"content-type", b"text/event-stream")], stream(request)
    else:
        payload = answer(request)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(payload))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": payload})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, log_level="warning", access_log=False, backlog=4096, timeout_keep_alive=75)
