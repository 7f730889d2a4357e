"""The decisions on tool calls that pages post, and the stream that answers them.

`addToolApprovalResponse` of the AI SDK writes a decision into the part of the call, and the client posts its messages.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from latchkey.domain.approval import NewDecision
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ApprovalDecidedEvent, ToolCallCompletedEvent, TurnEvent
from latchkey.interfaces.errors import convert_at, decode_at
from latchkey.interfaces.http.frontends.ai_sdk.chunks import encode_chunks, start
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator

_ASKED = {"approval-requested", "approval-responded"}


class _Part(Struct, frozen=True):
    state: Any = None
    call_id: Any = field(default=None, name="toolCallId")
    approval: Raw = Raw(b"null")


class _Message(Struct, frozen=True):
    role: Any = None
    id: Any = None
    parts: list[_Part] = []


class _Approval(Struct, frozen=True):
    id: ToolCallId
    approved: bool
    reason: Any = None


class PostedDecisions(Struct, frozen=True):
    """Decisions on calls of a turn. `undecided` and `running` are the calls that the page shows to be so."""

    turn_id: TurnId
    decisions: dict[ToolCallId, NewDecision]
    undecided: frozenset[Any]
    running: frozenset[Any]

    def is_lacking(self, event: TurnEvent) -> bool:
        """Whether it is a decision or a result that the page does not show."""
        data = event.decode()
        if isinstance(data, ApprovalDecidedEvent):
            return str(data.id) in self.undecided
        return isinstance(data, ToolCallCompletedEvent) and str(data.id) in self.running


def posted_decisions(data: ChatRequest) -> PostedDecisions | None:
    """Return the decisions in the assistant's message that the page continues; None for any other request.

    That message is the one that `messageId` names, else the last one. Only decisions are read, not the arguments of
    the calls. Raises `Invalid`.
    """
    path, message = ("", None) if data.is_regeneration else _continued_message(data)
    if message is None or message.role != "assistant":
        return None
    decisions = {}
    for index, part in enumerate(message.parts):
        if part.state == "approval-responded":
            approval_path = f"{path}.parts[{index}].approval"
            approval = decode_at(approval_path, part.approval, _Approval)
            fields = {"decision": "approve" if approval.approved else "decline", "reason": approval.reason or None}
            decisions[approval.id] = convert_at(approval_path, fields, NewDecision)
    if not decisions:
        return None
    return PostedDecisions(
        convert_at(f"{path}.id", message.id, TurnId),
        decisions,
        frozenset(str(part.call_id) for part in message.parts if part.state in _ASKED),
        frozenset(str(part.call_id) for part in message.parts if part.state == "input-available"),
    )


def _continued_message(data: ChatRequest) -> tuple[str, _Message | None]:
    """Return the message, with its path in the body. Messages of other forms are skipped."""
    messages = {"$.message": data.message} if bytes(data.message) != b"null" else {}
    messages = messages or {f"$.messages[{index}]": message for index, message in enumerate(data.messages or [])}
    for path, raw in reversed(messages.items()):
        try:
            message = msgspec.json.decode(raw, type=_Message)
        except msgspec.ValidationError:
            continue
        if data.message_id is None or message.id == data.message_id:
            return path, message
    return "", None


class ContinuationTranslator:
    """Translates the events of a turn, in their order from the first on, for a page that shows its beginning.

    The chunks begin with the first decision or result that the page lacks. They continue the page's message.
    """

    def __init__(self, posted: PostedDecisions) -> None:
        self._posted = posted
        self._translator = UIMessageTranslator()
        self._has_begun = False
        self.end = self._translator.end

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none. Raises `StreamBroken` as the translator does."""
        if self._has_begun:
            return self._translator.translate(event)
        if not self._posted.is_lacking(event):
            self._translator.chunks_of(event)
            return b""
        self._has_begun = True
        self._translator.forget_text()
        first = encode_chunks([start(self._posted.turn_id, {"status": "running"})])
        return first + self._translator.translate(event)
