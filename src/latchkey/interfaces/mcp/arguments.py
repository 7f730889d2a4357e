"""A call as the ledger keeps it: arguments in JSON and UTF-8, whatever came in, and the caller's own id of it."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from mcp import MCPError
from mcp_types import INVALID_PARAMS
from msgspec import Meta

from latchkey.domain.text import PLAIN

CALL_IDS = ("latchkey/callId", "claudecode/toolUseId")
"""Where callers put their own id of a call, in `_meta`."""

_CallId = Annotated[str, Meta(min_length=1, max_length=255, pattern=PLAIN)]
_encode = msgspec.json.Encoder().encode


def recorded(arguments: dict[str, Any]) -> bytes:
    """As they came; a lone surrogate, which UTF-8 cannot carry, as U+FFFD; and what is nested too deeply as null."""
    try:
        return _encode(arguments)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(arguments))
    except RecursionError:
        return b"null"


def call_id_in(meta: Mapping[str, Any] | None) -> str | None:
    """What the caller calls this call, if anything. Raises `MCPError` for what cannot be kept."""
    for name in CALL_IDS:
        if (given := (meta or {}).get(name)) is not None:
            try:
                return msgspec.convert(given, _CallId)
            except (msgspec.ValidationError, UnicodeEncodeError) as error:
                raise MCPError(INVALID_PARAMS, f"_meta: {name} must be text of 1 to 255 characters") from error
    return None


def _without_surrogates(arguments: dict[str, Any]) -> Any:
    text = json.dumps(arguments, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
