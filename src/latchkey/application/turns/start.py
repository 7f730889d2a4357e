"""How a turn starts: one transaction stores the user's message, the running turn, its first event and its token."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.application.turns.expire import expire_lost_turns
from latchkey.application.turns.finish import cancel_locked, cancel_turn
from latchkey.application.turns.prompts import PromptTemplate
from latchkey.domain.agent import PastStep
from latchkey.domain.assistant import (
    DEFAULT_ASSISTANT,
    NO_OPTIONS,
    AssistantList,
    AssistantSummary,
    ModelOptions,
    TitleSource,
)
from latchkey.domain.concurrency import FairSlots
from latchkey.domain.conversation import Conversation, ConversationId, NextMessage
from latchkey.domain.credentials import ContextToken, ContextTokenId, Grant, Scope, TokenSecret, UserId
from latchkey.domain.errors import (
    AgentNotConfigured,
    Conflict,
    IdempotencyMismatch,
    Invalid,
    TooManyTurns,
    TurnInProgress,
)
from latchkey.domain.message import Message, MessageId, NewMessage, PastTurn
from latchkey.domain.ports import Agent, UnitOfWork
from latchkey.domain.tool_call import HTTP_REQUEST, IdempotentCall
from latchkey.domain.turn import ClientRequest, Idempotency, RunInput, Turn, TurnId
from latchkey.domain.turn_event import TurnEvent, TurnStartedEvent


class AcceptanceLimits(Struct, frozen=True):
    """The limits for starting a turn: its first lease, running turns per user, the history for the model, attempts."""

    lease: timedelta
    turns_per_user: int
    history_turns: int
    history_chars: int
    attempts: int = 1


class TurnProfile(Struct, frozen=True):
    """How turns of one kind run: the agent, its system prompt, and the grants of the turn's token.

    - `slots`: how many turns of the agent run at once; None sets no limit.
    - `tools`: the only tools that the turn's token allows; None allows all that its grants do.
    - `template`: replaces the system prompt, with the values of each turn filled in.
    - `digest`: of the version of the assistant.
    - `models`: those that a message may choose. `options.model` is the one without a choice.
    - `max_steps`, `history_turns`: override the limits of the service.
    - `approve`: the tools that the user is asked about before they run.
    - `titles`: where the title of a conversation without one comes from: the user's message, or the model.
    """

    agent: Agent | None
    system_prompt: str
    grants: list[Grant]
    slots: FairSlots[UserId] | None = None
    tools: tuple[str, ...] | None = None
    title: str = ""
    template: PromptTemplate | None = None
    digest: str | None = None
    options: ModelOptions = NO_OPTIONS
    models: tuple[str, ...] = ()
    max_steps: int | None = None
    history_turns: int | None = None
    approve: tuple[str, ...] = ()
    titles: TitleSource = "message"

    def scope_of(self, turn: Turn, user_id: UserId) -> Scope:
        """Return the scope of a call of the turn that is made without its token: that of the token."""
        id = ContextTokenId(turn.id)
        return self.new_token(turn, id, turn.started_at).scope_for(user_id, self.tools, self.approve)

    def new_token(self, turn: Turn, id: ContextTokenId, now: datetime) -> ContextToken:
        """Return a token for one attempt of the turn."""
        return ContextToken(
            id=id,
            grants=self.grants,
            conversation_id=turn.conversation_id,
            turn_id=turn.id,
            created_at=now,
            expires_at=turn.lease_until,
        )

    def require_agent(self) -> Agent:
        """Return the agent. Raises `AgentNotConfigured` if there is none."""
        if self.agent is None:
            raise AgentNotConfigured("No agent is configured for this turn: set LATCHKEY_AGENT or OPENAI_API_KEY.")
        return self.agent


class TurnProfiles(Struct, frozen=True):
    """The profiles of chat turns by the name of the assistant, and the profile of turns that create a file."""

    chat: Mapping[str, TurnProfile]
    files: TurnProfile

    def select(self, assistant: str, message: NewMessage) -> TurnProfile:
        """Return the profile for a message in a conversation that has this assistant.

        Raises `Invalid` for an assistant that does not exist, for another one than the conversation's, and for a model
        that the assistant does not allow.
        """
        if message.assistant and message.assistant != assistant:
            raise Invalid.at(
                "$.assistant",
                f"Expected `{assistant}`, which this conversation began with: for another one start a new conversation",
            )
        profile = self.chat.get(assistant)
        if profile is None:
            raise Invalid.at("$.assistant", f"Expected one of {', '.join(sorted(self.chat))}")
        if message.artifact_generation:
            profile = self.files
        if message.model and message.model not in profile.models:
            allowed = f"one of {', '.join(profile.models)}" if profile.models else "none: this turn has no choice"
            raise Invalid.at("$.model", f"Expected {allowed}")
        return profile

    def of_turn(self, turn: Turn) -> TurnProfile | None:
        """Return the profile that continues a turn; None if its assistant does not exist any more."""
        return self.files if turn.run_input.artifact_generation else self.chat.get(turn.assistant or DEFAULT_ASSISTANT)

    @property
    def claim_names(self) -> frozenset[str]:
        """The claims of the users' JWTs that the instructions name."""
        templates = [profile.template for profile in self.chat.values() if profile.template]
        return frozenset().union(*(template.claim_names for template in templates))

    def summaries(self) -> AssistantList:
        """Return the assistants as they are published."""
        return AssistantList(
            [
                AssistantSummary(name, profile.title, [*profile.models], [*(profile.tools or ())])
                for name, profile in sorted(self.chat.items())
            ]
        )


class StartedTurn(Struct, frozen=True):
    """A new attempt of a running turn. Its token, with this secret and scope, lives as long as the lease.

    `message` is the text of the user, and `steps` are what earlier attempts have done.
    """

    turn: Turn
    message: str
    history: list[PastTurn]
    secret: TokenSecret
    scope: Scope
    profile: TurnProfile
    steps: list[PastStep] = []


@owner_only("exclusive", stores=True)
async def start_turn(
    uow: UnitOfWork,
    message: NewMessage,
    profiles: TurnProfiles,
    limits: AcceptanceLimits,
    request: ClientRequest = ClientRequest(),  # noqa: B008 - frozen
) -> StartedTurn | Turn:
    """Store the user's message and start a turn for it, with a token of its own.

    Returns the finished turn instead if the idempotency key was used before with the same body. Raises what
    `TurnProfiles.select` does; `TurnInProgress` if the conversation has a running turn, which the message does not
    interrupt, or the key's turn is running; `TurnLost` if a turn of the user is to be continued; `Invalid` for a turn
    to replace that is of another conversation; `IdempotencyMismatch`, `TooManyTurns`, `NotFound`,
    `AgentNotConfigured`, and `Conflict` if the key's turn was deleted less than 24 hours after it started.
    """
    running = await expire_lost_turns(uow, limits.attempts)
    if request.idempotency and (duplicate := await _find_duplicate(uow, request.idempotency)):
        return duplicate
    turn_id = TurnId(uow.new_id())
    timezone, assistant = message.timezone or None, message.assistant or DEFAULT_ASSISTANT
    if (conversation_id := await _find_conversation(uow, message)) is None:
        profile = profiles.select(assistant, message)
        conversation_id, history, seq = await _add_conversation(uow, message, assistant), list[PastTurn](), 1
    else:
        running = await _interrupt_running(uow, conversation_id, running, message, request)
        if message.replaces:
            await uow.messages.replace(conversation_id, message.replaces, turn_id)
        next_message = await _next_message(uow, conversation_id, assistant, message, request)
        seq, timezone, assistant = next_message.seq, next_message.timezone, next_message.assistant
        profile = profiles.select(assistant, message)
        turns = profile.history_turns or limits.history_turns
        history = await uow.messages.history(conversation_id, turns, limits.history_chars)
    _check_running(running, limits)
    turn = Turn(
        id=turn_id,
        conversation_id=conversation_id,
        status="running",
        agent=profile.require_agent().name,
        assistant=assistant,
        assistant_digest=profile.digest,
        metadata=message.metadata or {},
        started_at=uow.now,
        lease_until=uow.now + limits.lease,
        last_event=1,
        request=request,
        run_input=_run_input(message, request, timezone),
    )
    await _add_turn(uow, turn, _user_message(uow, turn, seq, message.message))
    secret, scope = await mint_token(uow, turn, profile)
    return StartedTurn(turn, message.message, history, secret, scope, profile)


def _check_running(running: list[Turn], limits: AcceptanceLimits) -> None:
    """Raises `TooManyTurns`."""
    if len(running) >= limits.turns_per_user:
        raise TooManyTurns(f"Limit of {limits.turns_per_user} running turns reached: wait until one has ended.")


def _run_input(message: NewMessage, request: ClientRequest, timezone: str | None) -> RunInput:
    return RunInput(
        message.artifact_generation,
        message.model or None,
        message.context or {},
        request.claims,
        timezone or request.timezone,
    )


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


async def _find_conversation(uow: UnitOfWork, message: NewMessage) -> ConversationId | None:
    """Return the conversation that the message names or in which it replaces a turn; None for a new one."""
    conversation_id = message.conversation_id
    if name := message.client_conversation_id:
        if conversation_id:
            raise Invalid.at("$.client_conversation_id", "Expected null: `conversation_id` names the conversation")
        conversation_id = await uow.conversations.find_id(name)
    if message.replaces:
        replaced = await uow.turns.get(message.replaces)
        is_named = conversation_id is not None or bool(name)
        if is_named and replaced.conversation_id != conversation_id:
            raise Invalid.at("$.replaces", "Expected a turn of this conversation")
        return replaced.conversation_id
    return conversation_id


async def _interrupt_running(
    uow: UnitOfWork, conversation_id: ConversationId, running: list[Turn], message: NewMessage, request: ClientRequest
) -> list[Turn]:
    """Cancel the running turn of the conversation, and return those of other conversations. Raises `TurnInProgress`."""
    for turn in running:
        if turn.conversation_id == conversation_id:
            await _check_interrupts(uow, turn, message, request)
            await cancel_turn(uow, turn.id)
    return [turn for turn in running if turn.conversation_id != conversation_id]


async def _check_interrupts(uow: UnitOfWork, turn: Turn, message: NewMessage, request: ClientRequest) -> None:
    """Raises `TurnInProgress` if the message does not interrupt, and if the running turn answers the same message."""
    if message.when_busy != "interrupt":
        raise _in_progress("This conversation has a running turn: wait until it has ended.", turn)
    if await _is_same_message(uow, turn, message, request):
        raise _in_progress("This message is being answered: wait until its turn has ended.", turn, same_request=True)


async def _next_message(
    uow: UnitOfWork, conversation_id: ConversationId, assistant: str, message: NewMessage, request: ClientRequest
) -> NextMessage:
    """Take the next message number. Turns that wait for the user end: their questions are declined.

    A turn whose questions are all decided waits for an approved call, or is to be continued: it counts as running.
    """
    timezone = message.timezone or None
    next_message = await uow.conversations.next_message(conversation_id, uow.now, timezone, assistant)
    if next_message.has_waiting_turn:
        for turn in await uow.turns.list_waiting(conversation_id):
            if not any(question.is_open for question in await uow.questions.list_of_turn(turn.id)):
                if message.when_busy != "interrupt":
                    turn.check_not_lost(uow.now)
                await _check_interrupts(uow, turn, message, request)
            await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
            await cancel_locked(uow, await uow.turns.get(turn.id, for_update=True), "message")
    return next_message


async def _is_same_message(uow: UnitOfWork, turn: Turn, message: NewMessage, request: ClientRequest) -> bool:
    """Whether a client has sent the message of the turn twice at once, under its own id of the message."""
    if request.message_id is None or message.replaces == turn.id:
        return False
    item = await uow.turns.get_with_message(turn.id)
    return item.client_id == request.message_id and item.message.content == message.message


def _in_progress(detail: str, turn: Turn, **members: object) -> TurnInProgress:
    return TurnInProgress(detail, turn_id=turn.id, conversation_id=turn.conversation_id, **members)


async def _add_conversation(uow: UnitOfWork, message: NewMessage, assistant: str) -> ConversationId:
    conversation = Conversation(
        id=ConversationId(uow.new_id()),
        title=None,
        created_at=uow.now,
        updated_at=uow.now,
        assistant=assistant,
        client_conversation_id=message.client_conversation_id or None,
    )
    await uow.conversations.add(conversation, messages=1, timezone=message.timezone or None)
    return conversation.id


async def _add_turn(uow: UnitOfWork, turn: Turn, message: Message) -> None:
    """Add the turn, the user's message, the first event, and the record of its idempotency key."""
    await uow.turns.add(turn)
    if turn.request.idempotency:
        await uow.idempotent_calls.add(_idempotent_call(uow, turn.request.idempotency, turn))
    await uow.turn_events.add(TurnEvent.of(turn.id, 1, TurnStartedEvent(turn.conversation_id, turn.agent)))
    await uow.messages.add(message, turn.request.message_id)


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


async def mint_token(uow: UnitOfWork, turn: Turn, profile: TurnProfile) -> tuple[TokenSecret, Scope]:
    """Add a token for one attempt of the turn."""
    token = profile.new_token(turn, ContextTokenId(uow.new_id()), uow.now)
    secret = TokenSecret.mint(uow.scope.user_id)
    await uow.context_tokens.add(token, secret, profile.tools, profile.approve)
    return secret, token.scope_for(uow.scope.user_id, profile.tools, profile.approve)
