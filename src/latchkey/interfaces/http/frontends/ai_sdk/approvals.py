"""The decisions on tool calls that pages post, and the stream that answers them.

`addToolApprovalResponse` of the AI SDK writes a decision into the part of the call, and the client posts its messages.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from latchkey.domain.approval import NewDecision
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ToolCallCompletedEvent, TurnEvent
from latchkey.interfaces.errors import convert_at, decode_at
from latchkey.interfaces.http.frontends.ai_sdk.chunks import encode_chunks, start
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from latchkey.interfaces.http.frontends.decisions import decision_at

_UNFINISHED = {"input-available", "approval-requested", "approval-responded"}


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
    """Decisions on calls of a turn. `calls` are all calls that the page shows, `unfinished` those without a result."""

    turn_id: TurnId
    decisions: dict[ToolCallId, NewDecision]
    calls: frozenset[str]
    unfinished: frozenset[str]

    def is_lacking(self, event: TurnEvent) -> bool:
        """Whether it is a result that the page does not show."""
        data = event.decode() if event.name == "tool_call.completed" else None
        return isinstance(data, ToolCallCompletedEvent) and str(data.id) in self.unfinished


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
            decision = decision_at(approval_path, is_approved=approval.approved, reason=approval.reason)
            decisions[approval.id] = decision
    if not decisions:
        return None
    return PostedDecisions(
        convert_at(f"{path}.id", message.id, TurnId),
        decisions,
        frozenset(str(part.call_id) for part in message.parts if part.call_id),
        frozenset(str(part.call_id) for part in message.parts if part.state in _UNFINISHED),
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

    The chunks begin with the first result that the page lacks, and continue its message. A page that has lost its
    connection may lack questions as well: without them it would send its decisions again and again.
    """

    def __init__(self, posted: PostedDecisions) -> None:
        self._posted = posted
        self._translator = UIMessageTranslator()
        self._has_begun = False

    def translate(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event, maybe none. Raises `StreamBroken` as the translator does."""
        if not (self._has_begun or event.is_last or self._posted.is_lacking(event)):
            self._translator.chunks_of(event)
            return b""
        return self._begin() + self._translator.translate(event)

    def end(self) -> bytes:
        """Return the server-sent events after the last event."""
        return self._begin() + self._translator.end()

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        chunks = self._translator.begin_rest(self._posted.calls)
        return encode_chunks([start(self._posted.turn_id, {"status": "running"}), *chunks])
