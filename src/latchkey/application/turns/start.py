"""How a turn begins: the message stored, the turn open, its token minted; or what came of it the first time."""

from datetime import timedelta

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.application.turns.finish import expire_lost_turns
from latchkey.application.turns.prompts import fit
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import ContextToken, ContextTokenId, Grant, Scope, TokenSecret
from latchkey.domain.errors import IdempotencyMismatch, TooManyTurns, TurnInProgress
from latchkey.domain.message import Message, MessageId, NewMessage, PastTurn
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import Idempotency, Turn, TurnId
from latchkey.domain.turn_event import TurnEvent, TurnStartedEvent


class AcceptanceLimits(Struct, frozen=True):
    """The limits under which turns are accepted."""

    lease: timedelta
    turns_per_user: int
    history_turns: int
    history_chars: int


class StartedTurn(Struct, frozen=True):
    """A turn that has been accepted: the message is stored, and the token lives as long as the lease."""

    turn: Turn
    history: list[PastTurn]
    secret: TokenSecret
    scope: Scope


class RepeatedTurn(Struct, frozen=True):
    """The turn that was accepted under the same idempotency key before, and has ended since."""

    turn_id: TurnId
    first: Idempotency


@owner_only("exclusive", stores=True)
async def start_turn(
    uow: UnitOfWork,
    said: NewMessage,
    agent: str,
    grants: list[Grant],
    terms: AcceptanceLimits,
    idempotency: Idempotency | None = None,
) -> StartedTurn | RepeatedTurn:
    """Store what the person said and open a turn for it, with a token of its own.

    Raises `TurnInProgress` if the conversation has a running one, or the idempotency key's is running;
    `IdempotencyMismatch`, `TooManyTurns` and `NotFound`.
    """
    running = await expire_lost_turns(uow)
    if idempotency and (repeated := await _repeated(uow, idempotency)):
        return repeated
    if (conversation_id := said.conversation_id) is None:
        conversation_id, history, seq = await _start_conversation(uow), list[PastTurn](), 1
    else:
        _refuse_second(running, conversation_id)
        history = await uow.messages.history(conversation_id, terms.history_turns)
        seq = await uow.conversations.next_seq(conversation_id, uow.now)
    if len(running) >= terms.turns_per_user:
        raise TooManyTurns(f"{len(running)} turns of this user are running, which is the limit: wait for one to end.")
    turn = Turn(
        id=TurnId(uow.new_id()),
        conversation_id=conversation_id,
        status="running",
        agent=agent,
        started_at=uow.now,
        lease_until=uow.now + terms.lease,
        last_event=1,
        idempotency=idempotency,
    )
    await uow.turns.add(turn)
    await uow.turn_events.add(TurnEvent.of(turn.id, 1, TurnStartedEvent(conversation_id, agent)))
    await uow.messages.add(_message(uow, turn, seq, said.message))
    secret, scope = await _mint(uow, turn, grants)
    return StartedTurn(turn, fit(history, terms.history_chars), secret, scope)


@owner_only("read")
async def find_duplicate_turn(uow: UnitOfWork, idempotency: Idempotency) -> RepeatedTurn | None:
    """What the message was answered the first time: also where there is no room for another."""
    return await _repeated(uow, idempotency)


async def _repeated(uow: UnitOfWork, idempotency: Idempotency) -> RepeatedTurn | None:
    turn = await uow.turns.find_by_idempotency_key(idempotency.key)
    if turn is None or turn.idempotency is None:
        return None
    if turn.idempotency.fingerprint != idempotency.fingerprint:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used with another body: give each message a key of its own."
        )
    if turn.is_running(uow.now):
        raise _in_progress("The turn of this Idempotency-Key is running: wait until it has ended.", turn)
    return RepeatedTurn(turn.id, turn.idempotency)


def _refuse_second(running: list[Turn], conversation_id: ConversationId) -> None:
    for turn in running:
        if turn.conversation_id == conversation_id:
            raise _in_progress("This conversation has a running turn: wait until it has ended.", turn)


def _in_progress(detail: str, turn: Turn) -> TurnInProgress:
    return TurnInProgress(detail, turn_id=turn.id, conversation_id=turn.conversation_id)


async def _start_conversation(uow: UnitOfWork) -> ConversationId:
    id = ConversationId(uow.new_id())
    await uow.conversations.add(Conversation(id=id, title=None, created_at=uow.now, updated_at=uow.now), messages=1)
    return id


def _message(uow: UnitOfWork, turn: Turn, seq: int, content: str) -> Message:
    return Message(
        id=MessageId(uow.new_id()),
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        seq=seq,
        role="user",
        content=content,
        tool_calls=[],
        created_at=uow.now,
    )


async def _mint(uow: UnitOfWork, turn: Turn, grants: list[Grant]) -> tuple[TokenSecret, Scope]:
    token = ContextToken(
        id=ContextTokenId(uow.new_id()),
        grants=grants,
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        created_at=uow.now,
        expires_at=turn.lease_until,
    )
    secret = TokenSecret.mint(uow.scope.user_id)
    await uow.context_tokens.add(token, secret)
    return secret, token.scope_for(uow.scope.user_id)
