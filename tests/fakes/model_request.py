"""A request that a fake model received, with the same view for all three APIs."""

import json
from asyncio import Event
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.anthropic_events import TOOL_PREFIX


@dataclass
class ModelRequest:
    """`client_disconnected` is set if the client closes the connection before the end of the answer."""

    path: str
    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any]
    client_disconnected: Event = field(default_factory=Event)

    @property
    def tools(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, description and input schema of each tool, in order."""
        if "system" in self.body:
            tools = self.body.get("tools", [])
            return [
                (tool["name"].removeprefix(TOOL_PREFIX), tool["description"], tool["input_schema"]) for tool in tools
            ]
        tools = [tool.get("function", tool) for tool in self.body.get("tools", [])]
        return [(tool["name"], tool["description"], tool["parameters"]) for tool in tools]

    @property
    def conversation(self) -> list[tuple[str, ...]]:
        """`(role, text)`, `("call", id, name, arguments)` and `("result", id, text)`, in order."""
        if "system" in self.body:
            lines = [line for message in self.body["messages"] for line in _anthropic_entries(message)]
            return [("system", self.body["system"][-1]["text"]), *lines]
        if "messages" in self.body:
            return [line for message in self.body["messages"] for line in _chat_entries(message)]
        return [("system", self.body["instructions"]), *map(_responses_entry, self.body["input"])]

    @property
    def results(self) -> list[str]:
        return [line[2] for line in self.conversation if line[0] == "result"]


def _responses_entry(item: dict[str, Any]) -> tuple[str, ...]:
    if item.get("type") == "function_call":
        return ("call", item["call_id"], item["name"], item["arguments"])
    if item.get("type") == "function_call_output":
        return ("result", item["call_id"], _text(item["output"]))
    return (item["role"], _text(item["content"]))


def _chat_entries(message: dict[str, Any]) -> list[tuple[str, ...]]:
    if message["role"] == "tool":
        return [("result", message["tool_call_id"], _text(message["content"]))]
    text = [(message["role"], _text(message["content"]))] if message.get("content") else []
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or []]
    return [*text, *(("call", id_, call["name"], call["arguments"]) for id_, call in calls)]


def _anthropic_entries(message: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if isinstance(message["content"], str):
        yield (message["role"], message["content"])
        return
    for block in message["content"]:
        match block["type"]:
            case "tool_use":
                arguments = json.dumps(block["input"], separators=(",", ":"), ensure_ascii=False)
                yield ("call", block["id"], block["name"].removeprefix(TOOL_PREFIX), arguments)
            case "tool_result":
                yield ("result", block["tool_use_id"], _text(block["content"]))
            case _:
                yield (message["role"], block["text"])


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
