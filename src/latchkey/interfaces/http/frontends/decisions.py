"""The user's decisions on tool calls, as front ends receive them."""

from latchkey.domain.approval import NewDecision
from latchkey.interfaces.errors import convert_at


def decision_at(path: str, *, is_approved: bool, reason: object) -> NewDecision:
    """Return the decision that stands at this path of the body. An empty reason counts as none. Raises `Invalid`."""
    fields = {"decision": "approve" if is_approved else "decline", "reason": reason or None}
    return convert_at(path, fields, NewDecision)
