"""How a turn is stored as ended: one way, whoever ends it."""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.turns.results import PublishedTurn
from latchkey.domain.errors import Conflict, Failure, TurnCancelled, TurnFailed, TurnInterrupted
from latchkey.domain.message import Message, MessageId
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import LockedTurn
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import (
    EventData,
    FinalEvent,
    MessageDeltaEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    numbered,
)


async def close_turn(uow: UnitOfWork, turn: Turn, *happened: EventData, **changes: Any) -> Turn:
    """Store the changes that end a turn, with its last events. The caller holds it, and revokes its token."""
    events = numbered(turn.id, turn.last_event, *happened)
    await uow.turn_events.add(*events)
    ended = replace(turn, last_event=events[-1].seq, **{"finished_at": uow.now, **changes})
    await uow.turns.update(ended)
    return ended


async def expire_lost_turns(uow: UnitOfWork) -> list[Turn]:
    """The turns that are running; those whose lease has passed are stored as interrupted."""
    unfinished = await uow.turns.list_running()
    for turn in unfinished:
        if turn.is_lost(uow.now):
            await expire_turn(uow, turn)
    return [turn for turn in unfinished if turn.is_running(uow.now)]


async def expire_turn(uow: UnitOfWork, turn: Turn) -> Turn:
    """Store a turn as interrupted whose lease has passed, with its token revoked, as it is now.

    A process whose clock is behind may hold both for alive.
    """
    turn = await uow.turns.get(turn.id, for_update=True)
    await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
    return await close_turn(uow, turn, TurnInterruptedEvent(), status="interrupted", finished_at=turn.lease_until)


_FAILURES: dict[str, type[TurnFailed]] = {kind.code: kind for kind in TurnFailed.__subclasses__()}


class TurnOutcome(Struct, frozen=True):
    """How a turn ended. `answer` is all that was told of its answer: the whole of it, if it is completed."""

    status: TurnStatus
    usage: Usage
    answer: str = ""
    error: TurnError | None = None


class TurnResult(Struct, frozen=True):
    """A turn that has ended, and the message that answered it, if it was."""

    turn: PublishedTurn
    message: Message | None

    @property
    def failure(self) -> Failure | None:
        """What somebody is told who waited for an answer, and there is none."""
        if self.turn.status == "completed":
            return None
        failure = _failure(self.turn)
        failure.members.update(turn_id=self.turn.id, conversation_id=self.turn.conversation_id)
        return failure


@owner_only("exclusive")
async def finish_turn(uow: UnitOfWork, turn_id: TurnId, ending: TurnOutcome) -> TurnResult:
    """End a turn, and its token with it: what it came to, after which no call of it can follow.

    Raises `Conflict` if the turn has ended or its lease has passed.
    """
    closing = await uow.turns.lock_for_finish(turn_id)
    turn, calls = closing.turn, closing.calls
    turn.check_running(uow.now)
    await uow.context_tokens.revoke_for_turn(turn_id, uow.now)
    message = await _answer(uow, closing, ending) if ending.status == "completed" else None
    happened: list[EventData] = [MessageDeltaEvent(rest)] if (rest := ending.answer[turn.answer_length :]) else []
    turn = await close_turn(
        uow,
        turn,
        *happened,
        _last(ending, message),
        status=ending.status,
        error=ending.error,
        usage=ending.usage,
        answer_length=len(ending.answer),
    )
    return TurnResult(PublishedTurn.of(turn, calls), message)


@owner_only("exclusive")
async def cancel_turn(uow: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Stop a turn: when this has answered, no call of it happens any more. One that has ended stays as it ended."""
    closing = await uow.turns.lock_for_finish(turn_id)
    turn = closing.turn
    await uow.context_tokens.revoke_for_turn(turn_id, uow.now)
    if turn.is_running(uow.now):
        turn = await close_turn(uow, turn, TurnCancelledEvent(), status="cancelled")
    elif turn.is_lost(uow.now):
        turn = await expire_turn(uow, turn)
    return PublishedTurn.of(turn, closing.calls)


@owner_only("exclusive")
async def expire_turns(uow: UnitOfWork) -> None:
    """Store every turn of the user whose lease has passed as interrupted."""
    await expire_lost_turns(uow)


@owner_only("read")
async def get_turn_result(uow: UnitOfWork, turn_id: TurnId) -> TurnResult:
    """What a turn came to. Raises `TurnLost`, and `Conflict` while it is running."""
    turn = (await uow.turns.get(turn_id)).as_it_is(uow.now)
    if turn.status == "running":
        raise Conflict("The turn is running.", turn_id=turn_id)
    calls = (await uow.tool_calls.list_by_turn([turn_id])).get(turn_id, [])
    message = await uow.messages.assistant_message(turn_id, calls) if turn.status == "completed" else None
    return TurnResult(PublishedTurn.of(turn, calls), message)


async def _answer(uow: UnitOfWork, closing: LockedTurn, ending: TurnOutcome) -> Message:
    turn = closing.turn
    message = Message(
        id=MessageId(uow.new_id()),
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        seq=closing.next_seq,
        role="assistant",
        content=ending.answer,
        tool_calls=closing.calls,
        created_at=uow.now,
    )
    await uow.conversations.set_last_seq(turn.conversation_id, closing.next_seq, uow.now)
    await uow.messages.add(message)
    return message


def _last(ending: TurnOutcome, message: Message | None) -> FinalEvent:
    if message is not None:
        return TurnCompletedEvent(message.content, message.id, ending.usage)
    if ending.error is not None:
        return TurnFailedEvent(ending.error.code, ending.error.detail)
    return TurnInterruptedEvent() if ending.status == "interrupted" else TurnCancelledEvent()


def _failure(turn: PublishedTurn) -> Failure:
    if turn.status == "cancelled":
        return TurnCancelled("The turn was cancelled before it was answered.")
    if turn.error is None:
        return TurnInterrupted(
            "The turn was interrupted before it was answered: send the message again, under another Idempotency-Key."
        )
    failure = _FAILURES.get(turn.error.code, Failure)(turn.error.detail)
    if turn.error.retry_after is not None:
        failure.retry_after = turn.error.retry_after
    return failure
