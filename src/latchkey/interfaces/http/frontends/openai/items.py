"""The items of a response, as they are when they begin."""

from typing import Any

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ApprovalDecidedEvent
from latchkey.interfaces.http.frontends.openai.ids import APPROVAL_RESPONSE, approval_request_id, encode_id

Item = dict[str, Any]

_SERVER = "latchkey"
_REASONS = {
    "expiry": "The user did not decide in time.",
    "message": "The user sent another message instead.",
    "cancel": "The response was cancelled.",
}


def text_item(id: str) -> Item:
    """Return a text of the answer, which is still empty."""
    return {"id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def call_item(id: str, name: str, request_id: str | None = None) -> Item:
    """Return a tool call without its arguments and its result."""
    return {
        "id": id,
        "type": "mcp_call",
        "server_label": _SERVER,
        "name": name,
        "arguments": "",
        "output": None,
        "error": None,
        "approval_request_id": request_id,
        "status": "in_progress",
    }


def approval_request_item(turn_id: TurnId, call_id: ToolCallId, name: str, arguments: str) -> Item:
    """Return the question whether a tool may be called."""
    id = approval_request_id(turn_id, call_id)
    return {"id": id, "type": "mcp_approval_request", "server_label": _SERVER, "name": name, "arguments": arguments}


def approval_response_item(turn_id: TurnId, decision: ApprovalDecidedEvent) -> Item:
    """Return the decision on a tool call, of the user or in the user's place."""
    return {
        "id": encode_id(APPROVAL_RESPONSE, decision.id),
        "type": "mcp_approval_response",
        "approval_request_id": approval_request_id(turn_id, decision.id),
        "approve": decision.decision == "approve",
        "reason": decision.reason or _REASONS.get(decision.by),
    }
