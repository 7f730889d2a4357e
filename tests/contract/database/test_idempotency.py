"""Idempotency keys: a message that is sent again with its key is the same turn."""

import asyncio
from datetime import timedelta
from itertools import count

import pytest
from msgspec.structs import replace

from latchkey.application.conversations import list_conversations
from latchkey.application.deletion import delete_and_remove, delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.finish import get_turn_result
from latchkey.application.turns.read import list_turns
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, start_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, Failure, IdempotencyMismatch, NotFound, TooManyTurns, TurnInProgress
from latchkey.domain.message import NewMessage
from latchkey.domain.page import Window
from latchkey.domain.quota import Quota
from latchkey.domain.tool_call import IDEMPOTENCY_PERIOD
from latchkey.domain.turn import ClientRequest, Idempotency, Turn, TurnId
from latchkey.infrastructure.database.event_bus import LocalEventBus
from tests.builders import LIMITS, a_conversation
from tests.contract.database.cancellation import is_cancelled_at
from tests.contract.database.conftest import Replica
from tests.contract.database.running_turn import RunningTurn
from tests.turns import profiles_of

KEY = Idempotency("8e03978e-40d5-43dd-bc93-6894a57f9324", "0" * 64)
OTHER_BODY = replace(KEY, fingerprint="1" * 64)


class Sender:
    """A client that sends messages with an idempotency key."""

    def __init__(self, dispatchers: list[Dispatcher], owner: Owner) -> None:
        self.dispatchers = dispatchers
        self.owner = owner

    async def send(
        self,
        key: Idempotency = KEY,
        where: ConversationId | None = None,
        on: int = 0,
        terms: AcceptanceLimits = LIMITS,
        request_id: str = "request-1",
    ) -> StartedTurn | Turn:
        message, request = NewMessage("Buy milk", where), ClientRequest(request_id, key)
        return await self.dispatchers[on].call(self.owner, start_turn, message, profiles_of(), terms, request)

    async def start(self, key: Idempotency = KEY, where: ConversationId | None = None) -> RunningTurn:
        """Send a message and return its turn."""
        running_turn = RunningTurn(self.dispatchers, self.owner)
        sent = await self.send(key, where)
        assert isinstance(sent, StartedTurn)
        running_turn.started = sent
        return running_turn

    async def conversations(self) -> int:
        return len((await self.dispatchers[0].call(self.owner, list_conversations, Window(200))).items)


def assert_duplicate(sent: StartedTurn | Turn, first: RunningTurn) -> None:
    """Assert that the repeated message returns the first turn."""
    assert isinstance(sent, Turn)
    assert (sent.id, sent.request) == (first.id, ClientRequest("request-1", KEY))


@pytest.fixture
def dispatchers(replica: Replica) -> list[Dispatcher]:
    return [Dispatcher(replica(), lambda _call: None) for _ in range(2)]


@pytest.fixture
def sender(dispatchers: list[Dispatcher], me: Owner) -> Sender:
    return Sender(dispatchers, me)


@pytest.mark.parametrize("on", [0, 1], ids=["here", "on another replica"])
async def test_idempotency_key_of_running_turn_is_conflict_with_turn_id(sender: Sender, on: int) -> None:
    running = await sender.start()
    with pytest.raises(TurnInProgress) as refused:
        await sender.send(on=on)

    where = running.started.turn.conversation_id
    assert refused.value.members == {"turn_id": running.id, "conversation_id": where, "same_request": True}
    assert await sender.conversations() == 1


@pytest.mark.parametrize("end", ["finish", "cancel", "expire_lease"])
async def test_idempotency_key_of_finished_turn_returns_it(sender: Sender, end: str) -> None:
    """However it ended, on every replica, with the id of the first request; nothing is added."""
    turn = await sender.start()
    await getattr(turn, end)()

    for on in (0, 1, 0):
        assert_duplicate(await sender.send(on=on, request_id="request-2"), turn)
    assert await sender.conversations() == 1
    ended = await sender.dispatchers[1].call(sender.owner, get_turn_result, turn.id)
    assert ended
    assert ended.turn.status == {"finish": "completed", "cancel": "cancelled", "expire_lease": "interrupted"}[end]


@pytest.mark.parametrize("has_ended", [False, True], ids=["running", "ended"])
async def test_idempotency_key_with_another_body_is_mismatch(sender: Sender, *, has_ended: bool) -> None:
    turn = await sender.start()
    if has_ended:
        await turn.finish()

    for on in (0, 1):
        with pytest.raises(IdempotencyMismatch):
            await sender.send(OTHER_BODY, on=on)
    assert await sender.conversations() == 1


async def test_idempotency_retry_is_answered_while_conversation_is_busy(sender: Sender) -> None:
    """The key is looked up before the conversation, which has another running turn by now."""
    first = await sender.start()
    await first.finish()
    where = first.started.turn.conversation_id
    second = await sender.start(replace(KEY, key="another"), where)

    assert_duplicate(await sender.send(), first)
    assert (await second.read()).status == "running"


async def test_idempotency_key_isolation_between_users(
    sender: Sender, dispatchers: list[Dispatcher], you: Owner
) -> None:
    mine, yours = await sender.start(), await Sender(dispatchers, you).start(OTHER_BODY)
    await mine.finish()

    assert mine.id != yours.id
    assert_duplicate(await sender.send(), mine)
    with pytest.raises(TurnInProgress):
        await Sender(dispatchers, you).send(OTHER_BODY)


async def test_idempotency_concurrent_duplicates_start_one_turn(sender: Sender) -> None:
    """On two replicas; the others get the id of the running turn."""
    outcomes = await asyncio.gather(*(sender.send(on=n % 2) for n in range(50)), return_exceptions=True)

    (accepted,) = [outcome for outcome in outcomes if isinstance(outcome, StartedTurn)]
    others = [outcome.members["turn_id"] for outcome in outcomes if isinstance(outcome, TurnInProgress)]
    assert others == [accepted.turn.id] * 49
    assert await sender.conversations() == 1


async def test_idempotency_key_of_deleted_conversation_can_be_reused_after_24_hours(
    sender: Sender, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late retry must not act again. In a process whose clock is ahead, the 24 hours have passed."""
    gone = await sender.start()
    await delete_and_remove(sender.dispatchers[1], sender.owner, delete_conversation, gone.started.turn.conversation_id)
    refused: list[type[Failure]] = []
    for key in (KEY, OTHER_BODY):
        with pytest.raises(Failure) as failure:
            await sender.send(key)
        refused.append(type(failure.value))
    units = replica()
    monkeypatch.setattr(units, "clock_offset", IDEMPOTENCY_PERIOD)
    sender.dispatchers.append(Dispatcher(units, lambda _call: None))

    assert refused == [Conflict, IdempotencyMismatch]
    assert isinstance(await sender.send(OTHER_BODY, on=2), StartedTurn)


async def test_idempotency_key_of_refused_message_can_be_reused(sender: Sender) -> None:
    """Refused because the conversation is missing or busy, or because of too many turns."""
    busy = await sender.start(replace(KEY, key="busy"))
    refused: list[type[Failure]] = []
    for where, terms in (
        (a_conversation().id, LIMITS),
        (busy.started.turn.conversation_id, LIMITS),
        (None, replace(LIMITS, turns_per_user=1)),
    ):
        with pytest.raises(Failure) as failure:
            await sender.send(OTHER_BODY, where, terms=terms)
        refused.append(type(failure.value))

    assert refused == [NotFound, TurnInProgress, TooManyTurns]
    assert isinstance(await sender.send(), StartedTurn)


async def test_idempotency_retry_after_disconnect_at_any_point_is_one_turn(sender: Sender) -> None:
    """The retry either finds the turn or starts it."""
    for wait in count(1):
        key = replace(KEY, key=f"{wait}")
        broke_off = await is_cancelled_at(wait, _send(sender, key))
        try:
            sent = await sender.send(key, on=1)
        except TurnInProgress as running:
            turn_id = running.members["turn_id"]
        else:
            assert isinstance(sent, StartedTurn)
            turn_id = sent.turn.id
        assert await _turns(sender) == [turn_id]
        if not broke_off:
            break
    assert wait > 2


async def _send(sender: Sender, key: Idempotency) -> None:
    await sender.send(key)


async def _turns(sender: Sender) -> list[TurnId]:
    """Count the conversations, and delete them."""
    dispatcher, turn_ids = sender.dispatchers[0], list[TurnId]()
    for conversation in (await dispatcher.call(sender.owner, list_conversations, Window())).items:
        turn_ids += [
            turn.id for turn in (await dispatcher.call(sender.owner, list_turns, conversation.id, Window())).items
        ]
        await delete_and_remove(dispatcher, sender.owner, delete_conversation, conversation.id)
    return turn_ids


async def test_idempotency_retry_of_lost_turn_with_storage_quota_reached_is_interrupted(
    sender: Sender, replica: Replica
) -> None:
    """The retry stores no message, so `start_turn` does not expire the lost turn."""
    lost = await sender.start()
    await lost.expire_lease()
    dispatcher = Dispatcher(replica(), lambda _call: None, Quota(stored_bytes=1))
    limits = TurnLimits(LIMITS, timedelta(minutes=1), max_steps=3)
    runner = TurnRunner(dispatcher, LocalEventBus(), profiles_of(), limits)

    handle = await runner.start(sender.owner, NewMessage("Buy milk"), ClientRequest("retry", KEY))
    result = await runner.wait(sender.owner, handle)

    assert (result.turn.id, result.turn.status) == (lost.id, "interrupted")
    assert handle.original_request_id == "request-1"


async def test_messages_without_idempotency_key_are_never_duplicates(running_turn: RunningTurn) -> None:
    first = running_turn.id
    await running_turn.start()
    assert running_turn.id != first
