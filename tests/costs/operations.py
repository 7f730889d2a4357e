"""The measured operations, called through the ASGI application: without a socket and without the work of a client."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

HISTORY_TURNS = 25
"""Two messages each."""
ITEMS = 50

_MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28"}
_META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@dataclass
class AsgiUser:
    """A user of the ASGI application."""

    app: Any
    user: str
    token: str
    conversation: str = ""

    async def create_data(self) -> None:
        """Create 50 tasks, and a conversation of 50 messages."""
        for number in range(ITEMS):
            await self.post("tasks", {"title": f"Task {number}"})
        self.conversation = (await self.post("chat", {"message": "add 1 task"}))["conversation_id"]
        for _ in range(HISTORY_TURNS - 1):
            await self.chat("add 1 task", self.conversation)

    async def post(self, path: str, body: Any) -> Any:
        return await self._request("POST", f"/api/{self.user}/{path}", body)

    async def get(self, path: str) -> Any:
        return await self._request("GET", f"/api/{self.user}/{path}?limit={ITEMS}")

    async def chat(self, message: str, conversation: str | None = None) -> Any:
        return await self.post("chat", {"message": message, "conversation_id": conversation})

    async def call(self, tool: str, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments, "_meta": _META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {**_MCP, "mcp-method": "tools/call", "mcp-name": tool}
        return (await self._request("POST", "/mcp", body, headers))["result"]["structuredContent"]

    async def _request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        content = b"" if body is None else msgspec.json.encode(body)
        all_headers = {
            "host": "127.0.0.1:8000",
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "content-length": str(len(content)),
            **(headers or {}),
        }
        status, response = await _send(self.app, _scope(method, path, all_headers), content)
        assert status in {200, 201}, (status, response)
        return msgspec.json.decode(response)


Operation = Callable[[AsgiUser], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "rest_add_task": lambda user: user.post("tasks", {"title": "Buy milk", "description": "from a test"}),
    "rest_list_tasks": lambda user: user.get("tasks"),
    "rest_get_messages": lambda user: user.get(f"conversations/{user.conversation}/messages"),
    "mcp_add_task": lambda user: user.call("add_task", title="Buy milk"),
    "mcp_list_tasks": lambda user: user.call("list_tasks"),
    "chat_turn_no_tool": lambda user: user.chat("hello"),
    "chat_turn_one_tool": lambda user: user.chat("add 1 task"),
    "chat_turn_one_tool_history": lambda user: user.chat("add 1 task", user.conversation),
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


async def _send(app: Any, scope: dict[str, Any], content: bytes) -> tuple[int, bytes]:
    """Status and body of the response."""
    pending = [{"type": "http.request", "body": content, "more_body": False}]
    messages: list[Any] = []

    async def receive() -> Any:
        return pending.pop() if pending else await asyncio.Event().wait()  # the client does not disconnect

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages[1:])
