"""What a handler is given, and what it answers."""

from typing import Any

from mcp.server.context import ServerRequestContext

Answer = dict[str, Any]
Context = ServerRequestContext[Any, Any]

JSON_BODY = "JSON body"
"""What `ctx.request` is where an answer is encoded by msgspec, which takes what is JSON already as it is (`Raw`)."""


def complete(**result: Any) -> Answer:
    """A result as the current protocol marks one that asks nothing back; for the older ones the SDK drops the mark."""
    return {"resultType": "complete", **result}
