"""How a turn starts: one transaction stores the user's message, the running turn, its first event and its token."""

from datetime import timedelta

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.application.turns.expire import expire_lost_turns
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import ContextToken, ContextTokenId, Grant, Scope, TokenSecret
from latchkey.domain.errors import Conflict, IdempotencyMismatch, TooManyTurns, TurnInProgress
from latchkey.domain.message import Message, MessageId, NewMessage, PastTurn
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import HTTP_REQUEST, IdempotentCall
from latchkey.domain.turn import ClientRequest, Idempotency, Turn, TurnId
from latchkey.domain.turn_event import TurnEvent, TurnStartedEvent


class AcceptanceLimits(Struct, frozen=True):
    """The limits for starting a turn: its first lease, running turns per user, and the history for the model."""

    lease: timedelta
    turns_per_user: int
    history_turns: int
    history_chars: int


class StartedTurn(Struct, frozen=True):
    """A new running turn. Its token, with this secret and scope, lives as long as the lease.

    `timezone` is the one that its conversation remembers.
    """

    turn: Turn
    history: list[PastTurn]
    secret: TokenSecret
    scope: Scope
    timezone: str | None


@owner_only("exclusive", stores=True)
async def start_turn(
    uow: UnitOfWork,
    message: NewMessage,
    agent: str,
    grants: list[Grant],
    limits: AcceptanceLimits,
    request: ClientRequest = ClientRequest(),  # noqa: B008 - frozen
) -> StartedTurn | Turn:
    """Store the user's message and start a turn for it, with a token of its own.

    Returns the finished turn instead if the idempotency key was used before with the same body. Raises
    `TurnInProgress` if the conversation has a running turn or the key's turn is running; `IdempotencyMismatch`,
    `TooManyTurns`, `NotFound`, and `Conflict` if the key's turn was deleted less than 24 hours after it started.
    """
    running = await expire_lost_turns(uow)
    if request.idempotency and (duplicate := await _find_duplicate(uow, request.idempotency)):
        return duplicate
    timezone = message.timezone or None
    if (conversation_id := message.conversation_id) is None:
        conversation_id, history, seq = await _add_conversation(uow, timezone), list[PastTurn](), 1
    else:
        _check_not_busy(conversation_id, running)
        history = await uow.messages.history(conversation_id, limits.history_turns, limits.history_chars)
        next_message = await uow.conversations.next_message(conversation_id, uow.now, timezone)
        seq, timezone = next_message.seq, next_message.timezone
    if len(running) >= limits.turns_per_user:
        raise TooManyTurns(f"Limit of {limits.turns_per_user} running turns reached: wait until one has ended.")
    turn = Turn(
        id=TurnId(uow.new_id()),
        conversation_id=conversation_id,
        status="running",
        agent=agent,
        started_at=uow.now,
        lease_until=uow.now + limits.lease,
        last_event=1,
        request=request,
    )
    await uow.turns.add(turn)
    if request.idempotency:
        await uow.idempotent_calls.add(_idempotent_call(uow, request.idempotency, turn))
    await uow.turn_events.add(TurnEvent.of(turn.id, 1, TurnStartedEvent(conversation_id, agent)))
    await uow.messages.add(_user_message(uow, turn, seq, message.message))
    secret, scope = await _mint_token(uow, turn, grants)
    return StartedTurn(turn, history, secret, scope, timezone)


@owner_only("read")
async def find_duplicate_turn(uow: UnitOfWork, idempotency: Idempotency) -> Turn | None:
    """Find the finished turn of an idempotency key; also for a user whose quota allows no new turn."""
    return await _find_duplicate(uow, idempotency)


async def _find_duplicate(uow: UnitOfWork, idempotency: Idempotency) -> Turn | None:
    turn = await uow.turns.find_by_idempotency_key(idempotency.key)
    if turn is None or turn.request.idempotency is None:
        await _check_not_deleted(uow, idempotency)
        return None
    if turn.request.idempotency.fingerprint != idempotency.fingerprint:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used with another body: use a new key for each new message."
        )
    if turn.is_running(uow.now):
        detail = "The turn of this Idempotency-Key is running: wait until it has ended."
        raise _in_progress(detail, turn, same_request=True)
    return turn


async def _check_not_deleted(uow: UnitOfWork, idempotency: Idempotency) -> None:
    """Raises `Conflict` if the key's turn is gone, and `IdempotencyMismatch` if the key is that of another request."""
    if first := await uow.idempotent_calls.find(HTTP_REQUEST, idempotency.key, uow.now):
        first.check_digest(idempotency.fingerprint)
        raise Conflict(
            "The conversation of this Idempotency-Key was deleted after the message had been processed: to send the"
            " message again, use a new key."
        )


def _idempotent_call(uow: UnitOfWork, idempotency: Idempotency, turn: Turn) -> IdempotentCall:
    """Return the record of the key, which outlives the turn: a late retry of a deleted turn must not act again."""
    key, digest = idempotency.key, idempotency.fingerprint
    response = f'{{"turn_id":"{turn.id}"}}'
    return IdempotentCall(HTTP_REQUEST, key, digest, response, is_error=False, created_at=uow.now)


def _check_not_busy(conversation_id: ConversationId, running: list[Turn]) -> None:
    for turn in running:
        if turn.conversation_id == conversation_id:
            raise _in_progress("This conversation has a running turn: wait until it has ended.", turn)


def _in_progress(detail: str, turn: Turn, **members: object) -> TurnInProgress:
    return TurnInProgress(detail, turn_id=turn.id, conversation_id=turn.conversation_id, **members)


async def _add_conversation(uow: UnitOfWork, timezone: str | None) -> ConversationId:
    id = ConversationId(uow.new_id())
    conversation = Conversation(id=id, title=None, created_at=uow.now, updated_at=uow.now)
    await uow.conversations.add(conversation, messages=1, timezone=timezone)
    return id


def _user_message(uow: UnitOfWork, turn: Turn, seq: int, content: str) -> Message:
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


async def _mint_token(uow: UnitOfWork, turn: Turn, grants: list[Grant]) -> tuple[TokenSecret, Scope]:
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
