"""A tool call as the ledger has it: what was asked, what came back, and how long it took."""

from typing import NewType
from uuid import UUID

from msgspec import Raw, Struct

from latchkey.domain.instant import Instant

ToolCallId = NewType("ToolCallId", UUID)


class ToolCall(Struct, frozen=True, kw_only=True):
    """`result` is the structured content, or the tool error's `{code, detail}`; `arguments` is what the model sent."""

    id: ToolCallId
    name: str
    arguments: Raw
    result: Raw
    is_error: bool
    started_at: Instant
    duration_ms: int
