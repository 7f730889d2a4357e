"""JSON-RPC as it goes over HTTP, for what no client of the SDK would send."""

import json
from typing import Any

import httpx2

from tests.integration.mcp.house import ADDRESS

ERAS = {"current": "2026-07-28", "older": "2025-11-25", "oldest": "2024-11-05"}
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": ERAS["current"],
    "io.modelcontextprotocol/clientCapabilities": {},
}


def message(era: str, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request of that era."""
    given = params or {}
    if era == "current":
        given = {**given, "_meta": {**_ENVELOPE, **given.get("_meta", {})}}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": given}


def call(era: str, tool: str, arguments: Any = None) -> dict[str, Any]:
    return message(era, "tools/call", {"name": tool, "arguments": arguments or {}})


def notification(method: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": {}}


def headers(era: str, sent: dict[str, Any], bearer: str | None) -> dict[str, str]:
    told = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    told["mcp-protocol-version"] = ERAS[era]
    if era == "current":
        told["mcp-method"] = sent["method"]
    if era == "current" and sent["method"] == "tools/call":
        told["mcp-name"] = sent["params"]["name"]
    if era == "current" and sent["method"] == "resources/read":
        told["mcp-name"] = sent["params"]["uri"]
    if bearer is not None:
        told["authorization"] = f"Bearer {bearer}"
    return told


async def post(
    http: httpx2.AsyncClient, era: str, sent: dict[str, Any], bearer: str | None, *, body: bytes | None = None
) -> httpx2.Response:
    """Send it, or that body in its place."""
    content = json.dumps(sent).encode() if body is None else body
    return await http.post(ADDRESS, content=content, headers=headers(era, sent, bearer))
