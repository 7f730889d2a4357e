"""Calls of tools that ask the user, as a client makes them that can ask: raw messages of the current protocol."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from latchkey.application.tasks import list_tasks
from latchkey.domain.credentials import Owner
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, McpService

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
FORMS: dict[str, Any] = {"elicitation": {"form": {}}}

APPROVE: dict[str, Any] = {"action": "accept", "content": {"approve": True}}
UNCHECKED: dict[str, Any] = {"action": "accept", "content": {"approve": False}}
DECLINE: dict[str, Any] = {"action": "decline"}
CANCEL: dict[str, Any] = {"action": "cancel"}


TEXT = {"text": "Hello"}
"""The arguments of a call of `publish`."""


class Clock:
    """The time of the service, which tests set forward."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass(frozen=True)
class Caller:
    """A client that sends one tool call at a time, with this credential."""

    service: McpService
    http: httpx2.AsyncClient
    bearer: str
    protocol: str = "current"

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        state: str | None = None,
        response: Any = None,
        call_id: str | None = None,
        **params: Any,
    ) -> Any:
        """Return the result of a call, or the error of its response."""
        meta: dict[str, Any] = {CAPABILITIES: FORMS} if self.protocol == "current" else {}
        if call_id is not None:
            meta["latchkey/callId"] = call_id
        members: dict[str, Any] = {"name": tool, "arguments": arguments, "_meta": meta}
        if state is not None:
            members["requestState"] = state
        if response is not None:
            members["inputResponses"] = {"approval": response}
        request = message(self.protocol, "tools/call", {**members, **params})
        body = (await post(self.http, self.protocol, request, self.bearer)).json()
        return body.get("result") or body["error"]

    async def ask(self, tool: str, arguments: dict[str, Any], call_id: str | None = None) -> str:
        """Call a tool that asks the user, and return the state of its input request."""
        result = await self.call(tool, arguments, call_id=call_id)
        assert result["resultType"] == "input_required", result
        return str(result["requestState"])


def error_of(result: Any) -> Any:
    """Return the object of a tool error."""
    assert result["isError"], result
    return json.loads(result["content"][0]["text"])


async def titles(service: McpService, owner: Owner = ME) -> list[str]:
    """Return the titles of the user's tasks, which the tools of the app add."""
    return [task.title for task in (await service.dispatcher.call(owner, list_tasks)).items]
