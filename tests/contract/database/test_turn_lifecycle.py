"""The life cycle of turns through the dispatcher: start, renewal and end, with concurrent operations."""

import asyncio
from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from latchkey.application.conversations import list_conversations, list_messages
from latchkey.application.deletion import delete_and_remove, delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import TurnOutcome, cancel_turn, finish_turn
from latchkey.application.turns.read import get_turn
from latchkey.application.turns.record import EventBatch, append_events, renew_turn
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import (
    Conflict,
    NotFound,
    OffsetConflict,
    TooManyTurns,
    TurnInProgress,
    TurnLost,
    Unauthenticated,
)
from latchkey.domain.message import PastTurn
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation, ToolRequest
from latchkey.domain.turn import TurnError, Usage
from tests.builders import LIMITS
from tests.contract.database.conftest import Replica
from tests.turns import started_turn

DONE = TurnOutcome("completed", Usage(2, 30, 4), "Done.")
MILK = ToolRequest("call-1", "add_task", Raw(b"{}"))
PASSED = replace(LIMITS, lease=timedelta(seconds=-1))


class Client:
    """A user of the service."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner) -> None:
        self.dispatcher = dispatcher
        self.owner = owner

    async def start_turn(
        self, text: str, where: ConversationId | None = None, terms: AcceptanceLimits = LIMITS
    ) -> StartedTurn:
        return await started_turn(self.dispatcher, self.owner, text, where, limits=terms)

    async def finish(self, accepted: StartedTurn, ending: TurnOutcome = DONE) -> None:
        await self.dispatcher.call(self.owner, finish_turn, accepted.turn.id, ending)


@pytest.fixture
def client(dispatcher: Dispatcher, me: Owner) -> Client:
    return Client(dispatcher, me)


async def test_history_contains_turn_with_tool_calls(client: Client, dispatcher: Dispatcher, me: Owner) -> None:
    """The next turn gets the message, the tool calls and the answer."""
    first = await client.start_turn("Buy milk")
    new = NewTask("Milk")
    outcome = await ToolCallExecutor(dispatcher).execute(
        first.secret, ToolInvocation("add_task", b'{"title":"Milk"}'), add_task, new
    )
    await client.finish(first)
    second = await client.start_turn("And?", first.turn.conversation_id)

    assert first.history == []
    (past,) = second.history
    assert past == PastTurn("Buy milk", past.tool_calls, "Done.")
    assert [(call.name, bytes(call.arguments), bytes(call.result)) for call in past.tool_calls] == [
        ("add_task", b'{"title":"Milk"}', outcome.json)
    ]
    messages = (await dispatcher.call(me, list_messages, first.turn.conversation_id, Window())).items
    assert [(message.seq, message.role, message.content) for message in messages] == [
        (1, "user", "Buy milk"),
        (2, "assistant", "Done."),
        (3, "user", "And?"),
    ]
    assert messages[1].tool_calls == past.tool_calls


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        (LIMITS, ["1", "2", "3"]),
        (replace(LIMITS, history_turns=2), ["2", "3"]),
        (replace(LIMITS, history_chars=2 * 105), ["2", "3"]),
        (replace(LIMITS, history_chars=2 * 105 - 1), ["3"]),
        (replace(LIMITS, history_chars=1), []),
    ],
    ids=["all", "two turns", "as many characters as two have", "one character less", "one character"],
)
async def test_history_too_long_drops_oldest_whole_turns(
    client: Client, terms: AcceptanceLimits, kept: list[str]
) -> None:
    where = None
    for text in "123":
        accepted = await client.start_turn(text * 100, where)
        await client.finish(accepted)
        where = accepted.turn.conversation_id

    assert [past.message[0] for past in (await client.start_turn("And?", where, terms)).history] == kept


async def test_second_running_turn_of_conversation_is_refused(client: Client) -> None:
    """The second message gets the running turn's id and is not stored."""
    running = await client.start_turn("Go")
    with pytest.raises(TurnInProgress) as refused:
        await client.start_turn("Again", running.turn.conversation_id)

    assert refused.value.members == {
        "turn_id": running.turn.id,
        "conversation_id": running.turn.conversation_id,
    }
    messages = await client.dispatcher.call(client.owner, list_messages, running.turn.conversation_id, Window())
    assert len(messages.items) == 1


async def test_concurrent_messages_start_one_turn_per_conversation(replica: Replica, me: Owner, client: Client) -> None:
    """In two processes; the other messages are not stored."""
    started = await client.start_turn("Start")
    await client.finish(started)
    where = started.turn.conversation_id
    people = [Client(Dispatcher(replica(), lambda _call: None), me) for _ in range(2)]

    outcomes = await asyncio.gather(
        *(people[n % 2].start_turn(f"{n}", where) for n in range(10)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["StartedTurn"] + ["TurnInProgress"] * 9
    messages = await client.dispatcher.call(me, list_messages, where, Window())
    assert [message.seq for message in messages.items] == [1, 2, 3]


async def test_running_turns_limit_per_user(replica: Replica, client: Client, me: Owner) -> None:
    """With concurrent messages in two processes; after one has ended another can start."""
    people = [Client(Dispatcher(replica(), lambda _call: None), me) for _ in range(2)]

    outcomes = await asyncio.gather(*(people[n % 2].start_turn(f"{n}") for n in range(10)), return_exceptions=True)

    accepted = [outcome for outcome in outcomes if isinstance(outcome, StartedTurn)]
    assert len(accepted) == LIMITS.turns_per_user
    assert {type(outcome) for outcome in outcomes} == {StartedTurn, TooManyTurns}
    assert len((await client.dispatcher.call(me, list_conversations, Window())).items) == LIMITS.turns_per_user
    await client.finish(accepted[0])
    assert (await client.start_turn("Now")).turn.status == "running"


async def test_expired_lease_ends_turn_and_token(client: Client, dispatcher: Dispatcher, me: Owner) -> None:
    """It does not count as running, its token is expired, it can be neither renewed nor finished; reads expire it."""
    lost = await client.start_turn("Lost", None, PASSED)

    with pytest.raises(Unauthenticated):
        await dispatcher.call(lost.secret, list_tasks)
    with pytest.raises(Conflict, match="its lease has expired"):
        await dispatcher.call(me, renew_turn, lost.turn.id, timedelta(minutes=1))
    with pytest.raises(Conflict, match="its lease has expired"):
        await client.finish(lost)
    with pytest.raises(Unauthenticated):
        await dispatcher.call(lost.secret, list_tasks)
    with pytest.raises(TurnLost):
        await dispatcher.call(me, get_turn, lost.turn.id)
    assert (await with_expiry(dispatcher, me, get_turn, lost.turn.id)).status == "interrupted"

    next_turn = await client.start_turn("Again", lost.turn.conversation_id)
    assert next_turn.history == [PastTurn("Lost", [], None)]
    published = await dispatcher.call(me, get_turn, lost.turn.id)
    assert (published.status, published.finished_at) == ("interrupted", lost.turn.lease_until)


async def test_renewed_lease_keeps_turn_and_token_alive(client: Client, dispatcher: Dispatcher, me: Owner) -> None:
    running = await client.start_turn("Go", None, replace(LIMITS, lease=timedelta(minutes=1)))
    await dispatcher.call(me, renew_turn, running.turn.id, timedelta(hours=1))
    await dispatcher.call(running.secret, add_task, NewTask("Still at it"))
    with pytest.raises(TurnInProgress):
        await client.start_turn("Again", running.turn.conversation_id)

    await dispatcher.call(me, renew_turn, running.turn.id, timedelta(seconds=-1))
    with pytest.raises(Unauthenticated):
        await dispatcher.call(running.secret, list_tasks)


async def test_concurrent_finish_ends_turn_once(
    replica: Replica, client: Client, dispatcher: Dispatcher, me: Owner
) -> None:
    """One of two concurrent finishes wins and returns what is stored; the token is revoked."""
    running = await client.start_turn("Go")
    people = [Client(Dispatcher(replica(), lambda _call: None), me) for _ in range(2)]
    failed = TurnOutcome("failed", Usage(1, 1, 1), error=TurnError("deadline", "Too slow."))

    outcomes = await asyncio.gather(
        people[0].finish(running), people[1].finish(running, failed), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]
    published = await dispatcher.call(me, get_turn, running.turn.id)
    assert published.status == ("completed" if outcomes[0] is None else "failed")
    assert published.usage == (DONE.usage if outcomes[0] is None else failed.usage)
    with pytest.raises(Unauthenticated):
        await dispatcher.call(running.secret, list_tasks)


async def test_deleted_conversation_keeps_its_tasks(client: Client, dispatcher: Dispatcher, me: Owner) -> None:
    """Also while its turn runs, whose token is deleted with it."""
    running = await client.start_turn("Go")
    task = await dispatcher.call(running.secret, add_task, NewTask("Milk"))
    assert task.conversation_id == running.turn.conversation_id

    await delete_and_remove(dispatcher, me, delete_conversation, running.turn.conversation_id)

    assert (await dispatcher.call(me, list_tasks)).items == [replace(task, conversation_id=None)]
    with pytest.raises(Unauthenticated):
        await dispatcher.call(running.secret, list_tasks)
    for gone in (
        dispatcher.call(me, get_turn, running.turn.id),
        dispatcher.call(me, list_messages, running.turn.conversation_id, Window()),
        client.finish(running),
    ):
        with pytest.raises(NotFound):
            await gone


async def test_concurrent_operations_do_not_deadlock(replica: Replica, me: Owner) -> None:
    """Append, call, renew, finish, subscribe and delete the conversation, all concurrently.

    Each operation succeeds or fails because of another one; the database finds no deadlock.
    """
    dispatchers = [Dispatcher(replica(), lambda _call: None) for _ in range(2)]
    answers: list[object] = []
    for n in range(12):
        here, there = dispatchers[n % 2], dispatchers[(n + 1) % 2]
        lost = await Client(here, me).start_turn("Go", None, PASSED if n % 3 == 0 else LIMITS)
        where = lost.turn.conversation_id
        answers += await asyncio.gather(
            *(there.call(lost.secret, add_task, NewTask("Milk")) for _ in range(3)),
            *(
                dispatcher.call(me, append_events, lost.turn.id, EventBatch(0, "Said", Usage(), MILK))
                for dispatcher in dispatchers
            ),
            here.call(me, renew_turn, lost.turn.id, timedelta(minutes=1)),
            there.call(me, cancel_turn, lost.turn.id),
            here.call(me, finish_turn, lost.turn.id, DONE),
            delete_and_remove(there, me, delete_conversation, where),
            Client(there, me).start_turn("And?", where),
            return_exceptions=True,
        )

    failures = {type(answer) for answer in answers if isinstance(answer, BaseException)}
    assert failures <= {Unauthenticated, Conflict, OffsetConflict, NotFound, TurnInProgress}
