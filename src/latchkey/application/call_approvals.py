"""Approvals of tool calls outside a turn: the question and the decision are stored, and the client makes the call.

A question is an `IdempotentCall`, so that any replica knows it, only for its own user, and for a day at most.
"""

from datetime import timedelta
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.domain.approval import DecisionName
from latchkey.domain.errors import Invalid
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import APPROVAL_REQUEST, IdempotentCall, ToolInvocation


class CallApproval(Struct, frozen=True):
    """What is stored about a question: the id under which the call is made, and the decision once there is one."""

    call_id: str
    decision: DecisionName | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CallApproval).decode


@owner_only("write")
async def request_call_approval(uow: UnitOfWork, invocation: ToolInvocation) -> UUID:
    """Store a question about this call, and return its id, with which the client sends the decision."""
    id = uow.new_id()
    approval = CallApproval(invocation.call_id or f"{APPROVAL_REQUEST}:{id}")
    question = IdempotentCall(
        caller=APPROVAL_REQUEST,
        key=str(id),
        digest=invocation.digest,
        response=_encode(approval).decode(),
        is_error=False,
        created_at=uow.now,
    )
    # `add` removes expired calls if `find` has seen some.
    await uow.idempotent_calls.find(APPROVAL_REQUEST, question.key, uow.now)
    await uow.idempotent_calls.add(question)
    return id


@owner_only("exclusive")
async def decide_call_approval(
    uow: UnitOfWork, id: UUID, invocation: ToolInvocation, decision: DecisionName | None, ttl_s: float
) -> CallApproval:
    """Store the decision on a question, unless there is one, and return the decision in force.

    The caller makes the call under the returned id, so that it runs once, whatever the client repeats. None as the
    decision leaves an open question open. Raises `Invalid` for a question that does not exist, has expired, or was
    about another call.
    """
    stored = await uow.idempotent_calls.find(APPROVAL_REQUEST, str(id), uow.now)
    ttl = timedelta(seconds=ttl_s)
    if stored is None or stored.created_at + ttl <= uow.now or stored.digest != invocation.digest:
        raise Invalid("There is no such question about this call, or it has expired.")
    approval = _decode(stored.response)
    if approval.decision is None and decision is not None:
        approval = replace(approval, decision=decision)
        decided = replace(stored, response=_encode(approval).decode())
        await uow.idempotent_calls.complete(decided, pending=stored.response)
    return approval
