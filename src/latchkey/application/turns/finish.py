"""How a turn is stored as ended: one way, whoever ends it."""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.turns.results import PublishedTurn
from latchkey.domain import turn_event
from latchkey.domain.errors import Conflict, Failure, TurnCancelled, TurnFailed, TurnInterrupted
from latchkey.domain.message import Message, MessageId
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import Closing
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import Happening, numbered


async def close_turn(work: UnitOfWork, turn: Turn, *happened: Happening, **changes: Any) -> Turn:
    """Store the changes that end a turn, with its last events. The caller holds it, and revokes its token."""
    events = numbered(turn.id, turn.last_event, *happened)
    await work.turn_events.add(*events)
    ended = replace(turn, last_event=events[-1].seq, **{"finished_at": work.now, **changes})
    await work.turns.replace(ended)
    return ended


async def settle(work: UnitOfWork) -> list[Turn]:
    """The turns that are running; those whose lease has passed are stored as interrupted."""
    unfinished = await work.turns.unfinished()
    for turn in unfinished:
        if turn.is_lost(work.now):
            await interrupt_turn(work, turn)
    return [turn for turn in unfinished if turn.is_running(work.now)]


async def interrupt_turn(work: UnitOfWork, turn: Turn) -> Turn:
    """Store a turn as interrupted whose lease has passed, with its token revoked, as it is now.

    A process whose clock is behind may hold both for alive.
    """
    turn = await work.turns.get(turn.id, for_update=True)
    await work.context_tokens.revoke_turn(turn.id, work.now)
    return await close_turn(work, turn, turn_event.Interrupted(), status="interrupted", finished_at=turn.lease_until)


_FAILURES: dict[str, type[TurnFailed]] = {kind.code: kind for kind in TurnFailed.__subclasses__()}


class Ending(Struct, frozen=True):
    """How a turn ended. `told` is all that was told of its answer: the whole of it, if it is completed."""

    status: TurnStatus
    usage: Usage
    told: str = ""
    error: TurnError | None = None


class Ended(Struct, frozen=True):
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


@owner_only("serial")
async def finish_turn(work: UnitOfWork, turn_id: TurnId, ending: Ending) -> Ended:
    """End a turn, and its token with it: what it came to, after which no call of it can follow.

    Raises `Conflict` if the turn has ended or its lease has passed.
    """
    closing = await work.turns.closing(turn_id)
    turn, calls = closing.turn, closing.calls
    turn.check_running(work.now)
    await work.context_tokens.revoke_turn(turn_id, work.now)
    message = await _answer(work, closing, ending) if ending.status == "completed" else None
    happened: list[Happening] = [turn_event.Delta(rest)] if (rest := ending.told[turn.told :]) else []
    turn = await close_turn(
        work,
        turn,
        *happened,
        _last(ending, message),
        status=ending.status,
        error=ending.error,
        usage=ending.usage,
        told=len(ending.told),
    )
    return Ended(PublishedTurn.of(turn, calls), message)


@owner_only("serial")
async def cancel_turn(work: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Stop a turn: when this has answered, no call of it happens any more. One that has ended stays as it ended."""
    closing = await work.turns.closing(turn_id)
    turn = closing.turn
    await work.context_tokens.revoke_turn(turn_id, work.now)
    if turn.is_running(work.now):
        turn = await close_turn(work, turn, turn_event.Cancelled(), status="cancelled")
    elif turn.is_lost(work.now):
        turn = await interrupt_turn(work, turn)
    return PublishedTurn.of(turn, closing.calls)


@owner_only("serial")
async def settle_turns(work: UnitOfWork) -> None:
    """Store every turn of the user whose lease has passed as interrupted."""
    await settle(work)


@owner_only("read")
async def get_ended(work: UnitOfWork, turn_id: TurnId) -> Ended:
    """What a turn came to. Raises `TurnLost`, and `Conflict` while it is running."""
    turn = (await work.turns.get(turn_id)).as_it_is(work.now)
    if turn.status == "running":
        raise Conflict("The turn is running.", turn_id=turn_id)
    calls = (await work.tool_calls.of_turns([turn_id])).get(turn_id, [])
    message = await work.messages.answer(turn_id, calls) if turn.status == "completed" else None
    return Ended(PublishedTurn.of(turn, calls), message)


async def _answer(work: UnitOfWork, closing: Closing, ending: Ending) -> Message:
    turn = closing.turn
    message = Message(
        id=MessageId(work.new_id()),
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        seq=closing.next_seq,
        role="assistant",
        content=ending.told,
        tool_calls=closing.calls,
        created_at=work.now,
    )
    await work.conversations.number(turn.conversation_id, closing.next_seq, work.now)
    await work.messages.add(message)
    return message


def _last(ending: Ending, message: Message | None) -> turn_event.Ending:
    if message is not None:
        return turn_event.Completed(message.content, message.id, ending.usage)
    if ending.error is not None:
        return turn_event.Failed(ending.error.code, ending.error.detail)
    return turn_event.Interrupted() if ending.status == "interrupted" else turn_event.Cancelled()


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
