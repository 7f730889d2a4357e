"""Tool calls as chunks of a UI message stream, with the user's approvals."""

from collections.abc import Container

import msgspec
from msgspec import Raw

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    ApprovalRequestedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
)
from latchkey.interfaces.http.frontends.ai_sdk.chunks import APPROVAL_RESPONSE, Chunk


class CallTranslator:
    """Translates the events of the tool calls of one turn, in their order.

    The id of an approval is the id of the call. Without `has_approvals` the chunks are those that ai 5 knows: a call
    that waits for the user has no result yet, and a call that is declined has failed.
    """

    def __init__(self, *, has_approvals: bool) -> None:
        self._has_approvals = has_approvals
        self._open: dict[ToolCallId, list[Chunk]] = {}
        """The calls without a result, each with its chunks so far."""
        self._declined: set[ToolCallId] = set()

    @property
    def are_answered(self) -> bool:
        """Whether all calls have a result."""
        return not self._open

    def begin(self, call: ToolCallStartedEvent) -> list[Chunk]:
        # Without `providerExecuted` the client would run the tool, or send the message again with its result.
        chunk: Chunk = {
            "type": "tool-input-available",
            "toolCallId": call.id,
            "toolName": call.name,
            "input": call.arguments,
            "providerExecuted": True,
        }
        self._open[call.id] = [chunk]
        return [chunk]

    def request_approval(self, data: ApprovalRequestedEvent) -> list[Chunk]:
        if not self._has_approvals:
            return []
        chunk: Chunk = {"type": "tool-approval-request", "approvalId": data.id, "toolCallId": data.id}
        self._open.setdefault(data.id, []).append(chunk)
        return [chunk]

    def decide(self, data: ApprovalDecidedEvent) -> list[Chunk]:
        if not self._has_approvals:
            return []
        is_approved = data.decision == "approve"
        if not is_approved:
            self._declined.add(data.id)
        reason = {} if data.reason is None else {"reason": data.reason}
        return [{"type": APPROVAL_RESPONSE, "approvalId": data.id, "approved": is_approved, **reason}]

    def open_except(self, ids: Container[str]) -> list[Chunk]:
        """Return the chunks of the calls without a result, but not of those with these ids."""
        return [chunk for id, chunks in self._open.items() if str(id) not in ids for chunk in chunks]

    def complete(self, call: ToolCallCompletedEvent) -> list[Chunk]:
        self._open.pop(call.id, None)
        if call.id in self._declined:
            return [{"type": "tool-output-denied", "toolCallId": call.id}]
        if call.is_error:
            return [_output_error(call.id, _error_text(call.result))]
        output = call.result
        return [{"type": "tool-output-available", "toolCallId": call.id, "output": output, "providerExecuted": True}]

    def close(self, error: str) -> list[Chunk]:
        """Return an error for each call without a result."""
        chunks = [_output_error(id, error) for id in self._open]
        self._open.clear()
        return chunks


def _output_error(id: ToolCallId, error: str) -> Chunk:
    return {"type": "tool-output-error", "toolCallId": id, "errorText": error, "providerExecuted": True}


def _error_text(result: Raw) -> str:
    """Return the detail of the failed call, or the whole result if it has none."""
    content = msgspec.json.decode(result)
    detail = content.get("detail") if isinstance(content, dict) else None
    return detail if isinstance(detail, str) else bytes(result).decode()
