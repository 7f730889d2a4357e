"""The answers of a run's `resume`: decisions on tool calls, after which the turn goes on as the new run."""

from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.log import find_turn
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.approval import NewDecision
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, Invalid, NotFound
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.interfaces.errors import decode_at
from latchkey.interfaces.http.frontends.ag_ui.run_input import RunAgentInput, UserMessage
from latchkey.interfaces.http.frontends.decisions import decision_at


class ContinuedTurn(Struct, frozen=True):
    """A turn whose questions the run has answered. The client has its events up to the number `begins_after`."""

    turn_id: TurnId
    begins_after: int


class _Answer(Struct, frozen=True, rename="camel"):
    """The payload of an answered question. TanStack AI can send changed arguments."""

    approved: bool
    reason: str | None = None
    edited_args: Raw | UnsetType = UNSET


class _ResumeEntry(Struct, frozen=True, rename="camel"):
    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Raw = Raw(b"null")

    def decision(self, path: str) -> NewDecision:
        """Return the decision. Raises `Invalid`, also for changed arguments: the call has those that were shown."""
        if self.status == "cancelled":
            return NewDecision("decline")
        answer = decode_at(f"{path}.payload", self.payload, _Answer)
        if answer.edited_args is not UNSET:
            detail = "The arguments of a call cannot be changed: decline it, and say in a message what you want"
            raise Invalid.at(f"{path}.payload.editedArgs", detail)
        return decision_at(f"{path}.payload", is_approved=answer.approved, reason=answer.reason)


async def decide(
    owner: Owner, dispatcher: Dispatcher, runner: TurnRunner, data: RunAgentInput, message: UserMessage | None
) -> tuple[ContinuedTurn | None, bool]:
    """Store the decisions of `resume` on questions of the thread's newest turn.

    Returns the turn if all of them are made, and whether the run has a further message of the user. That declines what
    is open, so that only approvals are stored before it. A decision on a question that is not open has no effect.
    Raises `Invalid` and what `TurnRunner.decide` raises.
    """
    decisions = _decisions(data)
    newest = await dispatcher.call(owner, find_turn, data.thread_id, [])
    is_further = message is not None and (newest is None or message.id is None or newest.message_id != message.id)
    made = 0
    for call_id, decision in decisions.items():
        if newest and call_id and (decision.decision == "approve" or not is_further):
            made += await _is_stored(owner, runner, newest.turn.id, call_id, decision)
    if newest is None or is_further or made < len(decisions):
        return None, is_further
    turn_id = newest.turn.id
    numbers = [await runner.find_decision_event(owner, turn_id, call_id) for call_id in decisions if call_id]
    return ContinuedTurn(turn_id, min(numbers) - 1), False


async def _is_stored(
    owner: Owner, runner: TurnRunner, turn_id: TurnId, call_id: ToolCallId, decision: NewDecision
) -> bool:
    """Store a decision. Return whether it is in force: False if the question is not open, and was decided otherwise."""
    try:
        await runner.decide(owner, turn_id, call_id, decision)
    except (Conflict, NotFound):
        return False
    return True


def _decisions(data: RunAgentInput) -> dict[ToolCallId | None, NewDecision]:
    """Return the decision on each call. An id of another form, for which the key is None, names no question."""
    decisions: dict[ToolCallId | None, NewDecision] = {}
    for place, raw in enumerate(data.resume or ()):
        entry = decode_at(f"$.resume[{place}]", raw, _ResumeEntry)
        decisions[_call_id(entry.interrupt_id)] = entry.decision(f"$.resume[{place}]")
    return decisions


def _call_id(interrupt_id: str) -> ToolCallId | None:
    try:
        return ToolCallId(msgspec.convert(interrupt_id, UUID))
    except msgspec.ValidationError:
        return None
