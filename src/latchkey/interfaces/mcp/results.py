"""What a handler is given, and what it answers."""

from collections.abc import Mapping
from typing import Any

import msgspec
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp_types import INVALID_PARAMS

from latchkey.domain.tool_call import ExternalCallId

Result = dict[str, Any]
Context = ServerRequestContext[Any, Any]

JSON_BODY = "JSON body"
"""What `ctx.request` is where an answer is encoded by msgspec, which takes what is JSON already as it is (`Raw`)."""


def complete(**result: Any) -> Result:
    """A result as the current protocol marks one that asks nothing back; for the older ones the SDK drops the mark."""
    return {"resultType": "complete", **result}


CALL_IDS = ("latchkey/callId", "claudecode/toolUseId")
"""Where callers put their own id of a call, in `_meta`."""


def call_id_in(meta: Mapping[str, Any] | None) -> str | None:
    """What the caller calls this call, if anything. Raises `MCPError` for what cannot be kept."""
    for name in CALL_IDS:
        if (given := (meta or {}).get(name)) is not None:
            try:
                return msgspec.convert(given, ExternalCallId)
            except (msgspec.ValidationError, UnicodeEncodeError) as error:
                raise MCPError(INVALID_PARAMS, f"_meta: {name} must be text of 1 to 255 characters") from error
    return None
