"""The caller's own id of a call."""

from collections.abc import Mapping
from typing import Any

import msgspec
from mcp import MCPError
from mcp_types import INVALID_PARAMS

from latchkey.domain.tool_call import CallerId

CALL_IDS = ("latchkey/callId", "claudecode/toolUseId")
"""Where callers put their own id of a call, in `_meta`."""


def call_id_in(meta: Mapping[str, Any] | None) -> str | None:
    """What the caller calls this call, if anything. Raises `MCPError` for what cannot be kept."""
    for name in CALL_IDS:
        if (given := (meta or {}).get(name)) is not None:
            try:
                return msgspec.convert(given, CallerId)
            except (msgspec.ValidationError, UnicodeEncodeError) as error:
                raise MCPError(INVALID_PARAMS, f"_meta: {name} must be text of 1 to 255 characters") from error
    return None
