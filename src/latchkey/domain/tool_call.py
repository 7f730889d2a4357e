"""A tool call as the ledger has it: what was asked, what came back, and how long it took."""

import json
from typing import Annotated, Any, NewType
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from latchkey.domain.values import PLAIN, Instant

ToolCallId = NewType("ToolCallId", UUID)
ExternalCallId = Annotated[str, Meta(min_length=1, max_length=255, pattern=PLAIN)]
"""The caller's own name of a call."""

ANNOUNCE_AFTER_S = 0.1
"""A call of a turn's agent that takes longer is announced: recorded without a result while it runs."""

NO_RESULT = Raw(b"null")
_NOTHING = {b"", b"null"}

_encode = msgspec.json.Encoder().encode


class ToolCall(Struct, frozen=True, kw_only=True):
    """`result` is the structured content, or the tool error's `{code, detail}`; `arguments` is what the model sent.

    A call that broke off before it had a result has null for one, and counts as an error.
    """

    id: ToolCallId
    name: str
    arguments: Raw
    result: Raw
    is_error: bool
    started_at: Instant
    duration_ms: int

    @property
    def has_arguments(self) -> bool:
        """Not if they were nested too deeply to be kept."""
        return bytes(self.arguments) not in _NOTHING

    @property
    def has_result(self) -> bool:
        return bytes(self.result) not in _NOTHING


def encode_arguments(arguments: dict[str, Any]) -> bytes:
    """As they came; a lone surrogate, which UTF-8 cannot carry, as U+FFFD; and what is nested too deeply as null."""
    try:
        return _encode(arguments)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(arguments))
    except RecursionError:
        return b"null"


def _without_surrogates(arguments: dict[str, Any]) -> Any:
    text = json.dumps(arguments, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
