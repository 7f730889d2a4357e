"""The end of a turn, however it ends: store the status, revoke the token and append the final event."""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.tool_calls import created_artifacts
from latchkey.application.turns.waiting import add_waiting_events, decline_open
from latchkey.domain.approval import Approval, DecidedBy
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Failure, TurnCancelled, TurnFailed, TurnInterrupted
from latchkey.domain.message import Message, MessageId
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import AgentName, Metadata, RunInput, Turn, TurnError, TurnId, TurnStatus, Usage
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
from latchkey.domain.turn_repositories import LockedTurn
from latchkey.domain.values import Instant

MAX_TITLE_CHARS = 60
"""The length of a title that is made from a text."""

_FAILURES: dict[str, type[TurnFailed]] = {kind.code: kind for kind in TurnFailed.__subclasses__()}


_NOTHING_TO_WAIT_FOR = TurnError(
    Failure.code, "A tool answered that the user must approve its call, and has not asked the user."
)


class TurnOutcome(Struct, frozen=True):
    """How the agent's run ended. `answer` is the text of the agent so far; the whole answer of a completed turn.

    A completed turn gives its conversation this `title` if it has none.
    """

    status: TurnStatus
    usage: Usage
    answer: str = ""
    error: TurnError | None = None
    model: str | None = None
    title: str | None = None
    attempt: int = 1


class PublishedTurn(Struct, frozen=True, kw_only=True):
    """A turn as it is published, with its tool calls in order, and the artifacts that they saved.

    `model` is the model that answered, as its server names it; else the model that was requested. `assistant_digest`
    changes with the definition of the assistant. Both fields of the assistant are null in turns of early releases; the
    digest also with `artifact_generation`. `replaced_by` is the turn that has replaced it; `messages` leaves out those
    of replaced turns. `attempt` counts the processes that have run it. `can_undo` says that the turn has ended, and
    that all that its tools changed is recorded: it can be undone unless it has been changed since. `undone_at` says
    when it was.
    """

    id: TurnId
    conversation_id: ConversationId
    status: TurnStatus
    agent: AgentName
    assistant: str | None
    assistant_digest: str | None
    model: str | None
    error: TurnError | None
    usage: Usage
    tool_calls: list[ToolCall]
    artifacts: list[ArtifactReference]
    started_at: Instant
    finished_at: Instant | None
    metadata: Metadata
    replaced_by: TurnId | None
    attempt: int
    can_undo: bool
    undone_at: Instant | None

    @classmethod
    def of(cls, turn: Turn, calls: list[ToolCall]) -> "PublishedTurn":
        """Combine the stored turn with its tool calls."""
        return cls(
            id=turn.id,
            conversation_id=turn.conversation_id,
            status=turn.status,
            agent=turn.agent,
            assistant=turn.assistant,
            assistant_digest=turn.assistant_digest,
            model=turn.model,
            error=turn.error,
            usage=turn.usage,
            tool_calls=calls,
            artifacts=created_artifacts(calls),
            started_at=turn.started_at,
            finished_at=turn.finished_at,
            metadata=turn.metadata,
            replaced_by=turn.replaced_by,
            attempt=turn.attempt,
            can_undo=turn.can_undo,
            undone_at=turn.undone_at,
        )


class TurnResult(Struct, frozen=True):
    """A turn that has ended or waits, as stored: with the assistant's message, or with the open questions."""

    turn: PublishedTurn
    message: Message | None
    approvals: list[Approval] = []

    @property
    def failure(self) -> Failure | None:
        """The failure for a client that waited for the answer; None for a completed or a waiting turn."""
        if self.turn.status in {"completed", "waiting"}:
            return None
        failure = _failure(self.turn)
        failure.members.update(turn_id=self.turn.id, conversation_id=self.turn.conversation_id)
        return failure


@owner_only("exclusive")
async def finish_turn(uow: UnitOfWork, turn_id: TurnId, outcome: TurnOutcome) -> TurnResult:
    """Store the outcome of a running turn, with the assistant's message, and revoke the turn's token.

    The outcome of a turn that waits for the user keeps it unfinished.

    Raises `Conflict` if the turn has ended, its lease has expired, or another attempt runs it.
    """
    locked = await uow.turns.lock_for_finish(turn_id)
    turn = locked.turn
    turn.check_running(uow.now, outcome.attempt)
    await uow.context_tokens.revoke_for_turn(turn_id, uow.now)
    events: list[EventData] = []
    if unwritten := outcome.answer[turn.answer_length :]:
        events.append(MessageDeltaEvent(unwritten))
    changes: dict[str, Any] = {
        "usage": outcome.usage,
        "model": outcome.model,
        "answer_length": max(turn.answer_length, len(outcome.answer)),
    }
    if outcome.status == "waiting" and not await uow.questions.list_of_turn(turn_id):
        outcome = replace(outcome, status="failed", error=_NOTHING_TO_WAIT_FOR)
    if outcome.status == "waiting":
        turn = await add_waiting_events(uow, replace(turn, status="waiting", **changes), events)
        return TurnResult(PublishedTurn.of(turn, locked.calls), None, await _open_questions(uow, turn))
    message = await _add_message(uow, locked, outcome) if outcome.status == "completed" else None
    events += await _decline_unfinished(uow, locked)
    final_event = _final_event(outcome, message)
    turn = await close_turn(uow, turn, *events, final_event, status=outcome.status, error=outcome.error, **changes)
    return TurnResult(PublishedTurn.of(turn, locked.calls), message)


@owner_only("exclusive")
async def cancel_turn(uow: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Cancel a running or waiting turn and revoke its token: after the commit none of its tool calls commits.

    Its open questions are declined. A turn that has ended stays as it is. A turn whose lease has expired is cancelled,
    too: no process continues it.
    """
    locked = await uow.turns.lock_for_finish(turn_id)
    turn = locked.turn
    await uow.context_tokens.revoke_for_turn(turn_id, uow.now)
    if turn.status in {"running", "waiting"}:
        turn = await cancel_locked(uow, turn, "cancel")
        return PublishedTurn.of(turn, await uow.tool_calls.list_of_turn(turn_id))
    return PublishedTurn.of(turn, locked.calls)


@owner_only("read")
async def get_turn_result(uow: UnitOfWork, turn_id: TurnId) -> TurnResult | None:
    """Return the result of a turn that has ended or waits for the user; None while it runs. Raises `TurnLost`."""
    turn = await uow.turns.get(turn_id)
    turn.check_not_lost(uow.now)
    approvals = await _open_questions(uow, turn) if turn.status == "waiting" else []
    if turn.status == "running" or (turn.status == "waiting" and not approvals):
        return None
    calls = await uow.tool_calls.list_of_turn(turn_id)
    message = await uow.messages.assistant_message(turn_id, calls) if turn.status == "completed" else None
    return TurnResult(PublishedTurn.of(turn, calls), message, approvals)


async def cancel_locked(uow: UnitOfWork, turn: Turn, by: DecidedBy) -> Turn:
    """Cancel a turn and decline its open questions. The caller has locked it and revoked its token."""
    return await close_turn(uow, turn, *await decline_open(uow, turn, by), TurnCancelledEvent(), status="cancelled")


async def close_turn(uow: UnitOfWork, turn: Turn, *events: EventData, **changes: Any) -> Turn:
    """Store these changes of a turn with its last events. The caller has locked the turn and revoked its token."""
    last_events = numbered(turn.id, turn.last_event, *events)
    await uow.turn_events.add(*last_events)
    closed = replace(turn, last_event=last_events[-1].seq, run_input=RunInput(), **{"finished_at": uow.now, **changes})
    await uow.turns.update(closed)
    return closed


async def close_as_interrupted(uow: UnitOfWork, turn: Turn) -> Turn:
    """Store a lost turn as interrupted at the end of its lease. The caller has locked it and revoked its token.

    The lease of a turn that was handed over says nothing about its end: it is interrupted now.
    """
    finished_at = uow.now if turn.is_released else turn.lease_until
    events = [*await decline_open(uow, turn, "cancel"), TurnInterruptedEvent()]
    return await close_turn(uow, turn, *events, status="interrupted", finished_at=finished_at)


async def _decline_unfinished(uow: UnitOfWork, locked: LockedTurn) -> list[EventData]:
    """Decline the open questions of a turn that ends, and return the events."""
    is_unfinished = any(not call.has_result for call in locked.calls)
    return await decline_open(uow, locked.turn, "cancel") if is_unfinished else []


async def _open_questions(uow: UnitOfWork, turn: Turn) -> list[Approval]:
    questions = await uow.questions.list_of_turn(turn.id)
    return [Approval.of(turn, question) for question in questions if question.can_be_decided(uow.now)]


async def _add_message(uow: UnitOfWork, locked: LockedTurn, outcome: TurnOutcome) -> Message:
    turn = locked.turn
    message = Message(
        id=MessageId(uow.new_id()),
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        seq=locked.next_seq,
        role="assistant",
        content=outcome.answer,
        tool_calls=locked.calls,
        created_at=uow.now,
    )
    await uow.conversations.set_last_seq(turn.conversation_id, locked.next_seq, uow.now, outcome.title)
    await uow.messages.add(message)
    return message


def title_of(text: str) -> str | None:
    """Return a title made from a text: its first line that is not blank, cut after a word; None if there is none."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    line = next(filter(None, lines), None)
    if line is None or len(line) <= MAX_TITLE_CHARS:
        return line
    words, _, _ = line[:MAX_TITLE_CHARS].rpartition(" ")
    return (words or line[: MAX_TITLE_CHARS - 1]) + "…"


def _final_event(outcome: TurnOutcome, message: Message | None) -> FinalEvent:
    if message is not None:
        return TurnCompletedEvent(message.content, message.id, outcome.usage)
    if outcome.error is not None:
        return TurnFailedEvent(outcome.error.code, outcome.error.detail)
    return TurnInterruptedEvent() if outcome.status == "interrupted" else TurnCancelledEvent()


def _failure(turn: PublishedTurn) -> Failure:
    if turn.status == "cancelled":
        return TurnCancelled("The turn was cancelled before it was answered.")
    if turn.error is None:
        return TurnInterrupted(
            "The turn was interrupted before it was answered: send the message again with another Idempotency-Key."
        )
    failure = _FAILURES.get(turn.error.code, Failure)(turn.error.detail)
    if turn.error.retry_after is not None:
        failure.retry_after = turn.error.retry_after
    return failure
