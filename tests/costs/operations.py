"""The operations whose costs are watched, asked of the ASGI application itself: no socket, and no client's own work."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

HISTORY_TURNS = 25
"""Fifty messages."""
ITEMS = 50

_MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28"}
_META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@dataclass
class Caller:
    """Somebody with 50 tasks, and with a conversation of 50 messages once they have been `settled`."""

    app: Any
    user: str
    token: str
    conversation: str = ""

    async def settled(self) -> None:
        for number in range(ITEMS):
            await self.post("tasks", {"title": f"Task {number}"})
        self.conversation = (await self.post("chat", {"message": "add 1 task"}))["conversation_id"]
        for _ in range(HISTORY_TURNS - 1):
            await self.chat("add 1 task", self.conversation)

    async def post(self, path: str, body: Any) -> Any:
        return await self._ask("POST", f"/api/{self.user}/{path}", body)

    async def get(self, path: str) -> Any:
        return await self._ask("GET", f"/api/{self.user}/{path}?limit={ITEMS}")

    async def chat(self, message: str, conversation: str | None = None) -> Any:
        return await self.post("chat", {"message": message, "conversation_id": conversation})

    async def call(self, tool: str, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments, "_meta": _META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {**_MCP, "mcp-method": "tools/call", "mcp-name": tool}
        return (await self._ask("POST", "/mcp", body, headers))["result"]["structuredContent"]

    async def _ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        raw = b"" if body is None else msgspec.json.encode(body)
        said = {"host": "127.0.0.1:8000", "authorization": f"Bearer {self.token}", "content-type": "application/json"}
        said = {**said, "content-length": str(len(raw)), **(headers or {})}
        answer = await _answered(self.app, _scope(method, path, said), raw)
        assert answer[0] in {200, 201}, answer
        return msgspec.json.decode(answer[1])


Operation = Callable[[Caller], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "rest_add_task": lambda me: me.post("tasks", {"title": "Buy milk", "description": "from a test"}),
    "rest_list_tasks": lambda me: me.get("tasks"),
    "rest_get_messages": lambda me: me.get(f"conversations/{me.conversation}/messages"),
    "mcp_add_task": lambda me: me.call("add_task", title="Buy milk"),
    "mcp_list_tasks": lambda me: me.call("list_tasks"),
    "chat_turn_no_tool": lambda me: me.chat("hello"),
    "chat_turn_one_tool": lambda me: me.chat("add 1 task"),
    "chat_turn_one_tool_history": lambda me: me.chat("add 1 task", me.conversation),
}


def _scope(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def _answered(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    left = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return left.pop() if left else await asyncio.Event().wait()  # a client that stays

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
