"""The rehearsal agent: runs tool calls that the message lists. For first steps and tests, without a key or network."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import msgspec
from msgspec import Struct

from latchkey.infrastructure.agents.openai.agent import OpenAIAgent
from latchkey.infrastructure.agents.scripted.responses_events import call_events, text_events
from latchkey.infrastructure.agents.toolset import Connect

_LINE = re.compile(r"/([A-Za-z0-9_-]{1,64})(?:[ \t]+(.*))?")


class RehearsalAgent(OpenAIAgent):
    """The OpenAI agent with an in-process server instead of a model's server."""

    name = "rehearsal"

    def __init__(self, connect: Connect) -> None:
        super().__init__(
            connect,
            model="rehearsal",
            api_key="none",
            base_url="http://rehearsal.invalid/v1",
            transport=RehearsalModel(),
        )


class RehearsalModel(httpx2.AsyncBaseTransport):
    """An in-process server with OpenAI's Responses API.

    Each line `/TOOL {json}` of the last message becomes a call of that tool, in order, one in each step. Then the
    answer contains the results. The answer to any other message explains this syntax and lists the tools.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        parsed = msgspec.json.decode(await request.aread(), type=_Request)
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Stream(parsed.response_events()), request=request)


class _Tool(Struct):
    name: str
    description: str | None = None


class _Request(Struct):
    input: list[dict[str, Any]]
    tools: list[_Tool] = []

    def response_events(self) -> Iterator[bytes]:
        last = max(index for index, item in enumerate(self.input) if item.get("role") == "user")
        calls = _calls(_text(self.input[last]["content"]))
        results = [_text(item["output"]) for item in self.input[last:] if item.get("type") == "function_call_output"]
        if len(results) < len(calls):
            return call_events(*calls[len(results)])
        return text_events(_report(calls, results) if calls else self._explanation())

    def _explanation(self) -> str:
        tools = "".join(f"\n- {tool.name}: {tool.description}" for tool in self.tools)
        return (
            "[rehearsal] This agent uses no model and understands no language. Write lines of the form /TOOL {json}: "
            f"each becomes a call of that tool, and the answer contains the results. The tools:{tools or ' none.'}"
        )


def _calls(message: str) -> list[tuple[str, str]]:
    """Names and arguments. Only newlines separate lines: a JSON string may contain other separators."""
    matches = (_LINE.fullmatch(line.rstrip()) for line in message.split("\n"))
    return [(match[1], match[2] or "{}") for match in matches if match]


def _report(calls: list[tuple[str, str]], results: list[str]) -> str:
    lines = (f"{name}: {result}" for (name, _), result in zip(calls, results, strict=True))
    return "\n".join(["[rehearsal] Done.", *lines])


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
