"""Use cases on turns: accept one, keep its lease, end it, and look at them."""

from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import needs, owner_only
from latchkey.application.history import fit
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.errors import Conflict, TooManyTurns, TurnInProgress
from latchkey.domain.message import Message, MessageId, NewMessage, PastTurn
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.published_turn import PublishedTurn
from latchkey.domain.scope import ContextToken, ContextTokenId, Grant, TokenSecret
from latchkey.domain.turn import Turn, TurnError, TurnId, TurnStatus, Usage


class Terms(Struct, frozen=True):
    """The limits under which turns are accepted."""

    lease: timedelta
    turns_per_user: int
    history_turns: int
    history_chars: int


class Accepted(Struct, frozen=True):
    """A turn that has been accepted: the message is stored, and the token lives as long as the lease."""

    turn: Turn
    history: list[PastTurn]
    secret: TokenSecret


class Ending(Struct, frozen=True):
    """How a turn ended. `response` is what a completed one answered."""

    status: TurnStatus
    usage: Usage
    response: str = ""
    error: TurnError | None = None


class Ended(Struct, frozen=True):
    """A turn that has ended, and the message that answered it, if it was."""

    turn: PublishedTurn
    message: Message | None


@owner_only("serial")
async def accept_turn(work: UnitOfWork, said: NewMessage, agent: str, grants: list[Grant], terms: Terms) -> Accepted:
    """Store what the person said and open a turn for it, with a token of its own.

    Raises `TurnInProgress` if the conversation has a running one, `TooManyTurns`, and `NotFound`.
    """
    running = await _settle(work)
    if (conversation_id := said.conversation_id) is None:
        conversation_id, history, seq = await _start_conversation(work), list[PastTurn](), 1
    else:
        _refuse_second(running, conversation_id)
        history = await work.messages.history(conversation_id, terms.history_turns)
        seq = await work.conversations.next_seq(conversation_id, work.now)
    if len(running) >= terms.turns_per_user:
        raise TooManyTurns(f"{len(running)} turns of this user are running, which is the limit: wait for one to end.")
    turn = Turn(
        id=TurnId(work.new_id()),
        conversation_id=conversation_id,
        status="running",
        agent=agent,
        started_at=work.now,
        lease_until=work.now + terms.lease,
    )
    await work.turns.add(turn)
    await work.messages.add(_message(work, turn, seq, said.message))
    return Accepted(turn, fit(history, terms.history_chars), await _mint(work, turn, grants))


@owner_only("serial")
async def renew_turn(work: UnitOfWork, turn_id: TurnId, lease: timedelta) -> None:
    """Keep a running turn and its token alive. Raises `Conflict` if the turn has ended or its lease has passed."""
    until = work.now + lease
    await work.context_tokens.extend_turn(turn_id, until, work.now)
    turn = await _running(work, turn_id)
    await work.turns.replace(replace(turn, lease_until=until))


@owner_only("serial")
async def finish_turn(work: UnitOfWork, turn_id: TurnId, ending: Ending) -> Ended:
    """End a turn: its token first, so that no call of it can follow, then what it came to.

    Raises `Conflict` if the turn has ended or its lease has passed.
    """
    await work.context_tokens.revoke_turn(turn_id, work.now)
    turn = await _running(work, turn_id)
    calls = (await work.tool_calls.of_turns([turn_id])).get(turn_id, [])
    message = None
    if ending.status == "completed":
        seq = await work.conversations.next_seq(turn.conversation_id, work.now)
        message = replace(_message(work, turn, seq, ending.response), role="assistant", tool_calls=calls)
        await work.messages.add(message)
    turn = replace(turn, status=ending.status, error=ending.error, usage=ending.usage, finished_at=work.now)
    await work.turns.replace(turn)
    return Ended(PublishedTurn.of(turn, calls), message)


@needs(Grant.CONVERSATIONS_READ)
async def list_turns(work: UnitOfWork, conversation_id: ConversationId, window: Window) -> Page[PublishedTurn]:
    """List the turns of a conversation, newest first."""
    page = await work.turns.page(conversation_id, window)
    if not page.items:
        await work.conversations.get(conversation_id)
        return Page([], None)
    calls = await work.tool_calls.of_turns([turn.id for turn in page.items])
    turns = [PublishedTurn.of(turn.as_of(work.now), calls.get(turn.id, [])) for turn in page.items]
    return Page(turns, page.next_cursor)


@needs(Grant.CONVERSATIONS_READ)
async def get_turn(work: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Show one turn with its tool calls."""
    turn = (await work.turns.get(turn_id)).as_of(work.now)
    return PublishedTurn.of(turn, (await work.tool_calls.of_turns([turn_id])).get(turn_id, []))


async def _settle(work: UnitOfWork) -> list[Turn]:
    """The turns that are running; those whose lease has passed are stored as what they are."""
    unfinished = await work.turns.unfinished()
    for turn in unfinished:
        if not turn.is_running(work.now):
            await work.turns.replace(turn.as_of(work.now))
    return [turn for turn in unfinished if turn.is_running(work.now)]


def _refuse_second(running: list[Turn], conversation_id: ConversationId) -> None:
    for turn in running:
        if turn.conversation_id == conversation_id:
            raise TurnInProgress(
                "This conversation has a running turn: wait until it has ended.",
                turn_id=turn.id,
                conversation_id=conversation_id,
            )


async def _running(work: UnitOfWork, turn_id: TurnId) -> Turn:
    turn = await work.turns.get(turn_id, for_update=True)
    if not turn.is_running(work.now):
        raise Conflict(f"The turn is {turn.as_of(work.now).status}.", turn_id=turn_id)
    return turn


async def _start_conversation(work: UnitOfWork) -> ConversationId:
    id = ConversationId(work.new_id())
    await work.conversations.add(Conversation(id=id, title=None, created_at=work.now, updated_at=work.now), messages=1)
    return id


def _message(work: UnitOfWork, turn: Turn, seq: int, content: str) -> Message:
    return Message(
        id=MessageId(work.new_id()),
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        seq=seq,
        role="user",
        content=content,
        tool_calls=[],
        created_at=work.now,
    )


async def _mint(work: UnitOfWork, turn: Turn, grants: list[Grant]) -> TokenSecret:
    token = ContextToken(
        id=ContextTokenId(work.new_id()),
        grants=grants,
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        created_at=work.now,
        expires_at=turn.lease_until,
    )
    secret = TokenSecret.mint(work.scope.user_id)
    await work.context_tokens.add(token, secret)
    return secret
