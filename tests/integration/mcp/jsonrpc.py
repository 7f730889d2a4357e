"""JSON-RPC messages and HTTP headers of each protocol version, for requests that no SDK client would send."""

import json
from typing import Any

import httpx2

from tests.integration.mcp.mcp_service import MCP_URL

PROTOCOLS = {"current": "2026-07-28", "older": "2025-11-25", "oldest": "2024-11-05"}
_META = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOLS["current"],
    "io.modelcontextprotocol/clientCapabilities": {},
}


def message(protocol: str, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a request of that protocol version."""
    params = params or {}
    if protocol == "current":
        params = {**params, "_meta": {**_META, **params.get("_meta", {})}}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call(protocol: str, tool: str, arguments: Any = None) -> dict[str, Any]:
    """Return a `tools/call` request."""
    return message(protocol, "tools/call", {"name": tool, "arguments": arguments or {}})


def notification(method: str) -> dict[str, Any]:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": {}}


def headers(protocol: str, request: dict[str, Any], bearer: str | None) -> dict[str, str]:
    """Return the headers that belong to the request."""
    fields = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    fields["mcp-protocol-version"] = PROTOCOLS[protocol]
    if protocol == "current":
        fields["mcp-method"] = request["method"]
    if protocol == "current" and request["method"] == "tools/call":
        fields["mcp-name"] = request["params"]["name"]
    if protocol == "current" and request["method"] == "resources/read":
        fields["mcp-name"] = request["params"]["uri"]
    if bearer is not None:
        fields["authorization"] = f"Bearer {bearer}"
    return fields


async def post(
    http: httpx2.AsyncClient, protocol: str, request: dict[str, Any], bearer: str | None, *, body: bytes | None = None
) -> httpx2.Response:
    """Send the request with its headers; `body` replaces its JSON."""
    content = json.dumps(request).encode() if body is None else body
    return await http.post(MCP_URL, content=content, headers=headers(protocol, request, bearer))
