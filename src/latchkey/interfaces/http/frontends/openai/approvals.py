"""The user's decisions on tool calls, which a client of OpenAI's API sends as items of the next request."""

from collections.abc import Awaitable, Callable

from latchkey.application.turns.log import TurnLog
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.turn import TurnId
from latchkey.interfaces.http.frontends.openai.ids import (
    CONVERSATION,
    ResponsePart,
    decode_approval_request_id,
    decode_id,
    decode_response_id,
)
from latchkey.interfaces.http.frontends.openai.requests import NewResponse

ReadLog = Callable[[TurnId], Awaitable[TurnLog]]


async def decide(
    owner: Owner, runner: TurnRunner, read_log: ReadLog, data: NewResponse
) -> tuple[TurnLog, ResponsePart]:
    """Store the decisions, in their order. Return the turn, and the part of it that they begin.

    Repeated decisions begin the same part as the first time. Raises `Invalid`, and what `TurnRunner.decide` does.
    """
    approvals = data.approvals
    ids = [decode_approval_request_id(approval.approval_request_id) for _, approval in approvals]
    turn_id = ids[0][0]
    if any(id != turn_id for id, _ in ids):
        raise Invalid.at("$.input", "Expected decisions on the calls of one response")
    if len(set(ids)) < len(ids):
        raise Invalid.at("$.input", "Expected one decision on each call")
    decisions = [approval.decision(path) for path, approval in approvals]
    await _check_references(read_log, turn_id, data)
    for (_, call_id), decision in zip(ids, decisions, strict=True):
        await runner.decide(owner, turn_id, call_id, decision)
    log = await read_log(turn_id)
    calls = {call_id for _, call_id in ids}
    numbers = [event.seq for event in log.events if event.decided_call in calls]
    return log, ResponsePart(min(numbers) - 1, max(numbers))


async def _check_references(read_log: ReadLog, turn_id: TurnId, data: NewResponse) -> None:
    """Check that the request names no other response or conversation. Raises `Invalid` and `NotFound`."""
    if data.previous_response_id and decode_response_id(data.previous_response_id)[0] != turn_id:
        raise Invalid.at("$.previous_response_id", "Expected the response that asked for the approval")
    if data.conversation_id:
        conversation_id = ConversationId(decode_id(CONVERSATION, data.conversation_id))
        if (await read_log(turn_id)).turn.conversation_id != conversation_id:
            raise NotFound.of("approval")
