"""Deleted conversations and artifacts: gone at once, and removed in steps by this process or another."""

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from latchkey.application import deletion
from latchkey.application.artifacts import (
    add_artifact,
    delete_artifact,
    get_artifact,
    list_artifacts,
    list_versions,
    revise_artifact,
)
from latchkey.application.context_tokens import list_context_tokens, mint_context_token
from latchkey.application.conversations import (
    get_conversation,
    get_transcript,
    list_conversations,
    list_messages,
    update_conversation,
)
from latchkey.application.deletion import delete_and_remove, delete_conversation, remove_deleted
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.turns.finish import TurnOutcome, cancel_turn, finish_turn, get_turn_result
from latchkey.application.turns.read import check_turn, get_turn, list_turns, read_events
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.application.turns.start import StartedTurn, find_duplicate_turn, start_turn
from latchkey.domain.artifact import ArtifactRevision, NewArtifact
from latchkey.domain.conversation import ConversationChanges
from latchkey.domain.credentials import TASKS_READ, NewContextToken, Owner
from latchkey.domain.errors import Conflict, NotFound, Unauthenticated
from latchkey.domain.message import NewMessage
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork, UnitsOfWork
from latchkey.domain.quota import ROW_BYTES
from latchkey.domain.task import NewTask
from latchkey.domain.turn import ClientRequest, Idempotency, Usage
from tests.builders import LIMITS
from tests.contract.database.conftest import Replica
from tests.contract.database.event_bus_pair import run_process
from tests.turns import profiles_of, started_turn

DONE = TurnOutcome("completed", Usage(), "Done.")
REQUEST = ClientRequest("request", Idempotency("key", "0" * 64))
TITLE = ConversationChanges(title="Again")


class Conversation:
    """A conversation with ended turns, an artifact, a task and a token, and another one that stays."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner) -> None:
        self.dispatcher = dispatcher
        self.owner = owner

    async def store(self, turns: int = 1, versions: int = 1, tokens: int = 1) -> None:
        call, me = self.dispatcher.call, self.owner
        self.kept = (await started_turn(self.dispatcher, me, "Stay")).turn
        first = await call(me, start_turn, NewMessage("Go"), profiles_of(), LIMITS, REQUEST)
        assert isinstance(first, StartedTurn)
        self.id, self.turn_id = first.turn.conversation_id, first.turn.id
        self.task = await call(first.secret, add_task, NewTask("Milk"))
        await call(me, finish_turn, self.turn_id, DONE)
        for _ in range(turns - 1):
            more = await started_turn(self.dispatcher, me, "Go on", self.id)
            await call(me, finish_turn, more.turn.id, DONE)
        self.artifact = await call(me, add_artifact, NewArtifact("Plan", "Text", conversation_id=self.id))
        for _ in range(versions - 1):
            await call(me, revise_artifact, self.artifact.id, ArtifactRevision("Text"))
        new = NewContextToken([TASKS_READ], self.id)
        self.secrets = [(await call(me, mint_context_token, new)).secret for _ in range(tokens)]


Attempt = Callable[[Dispatcher, Owner, Conversation], Awaitable[object]]
ATTEMPTS: dict[str, Attempt] = {
    "get conversation": lambda to, me, of: to.call(me, get_conversation, of.id),
    "get transcript": lambda to, me, of: to.call(me, get_transcript, of.id),
    "update conversation": lambda to, me, of: to.call(me, update_conversation, of.id, TITLE),
    "delete conversation": lambda to, me, of: to.call(me, delete_conversation, of.id),
    "list messages": lambda to, me, of: to.call(me, list_messages, of.id, Window()),
    "start turn": lambda to, me, of: started_turn(to, me, "And?", of.id),
    "list turns": lambda to, me, of: to.call(me, list_turns, of.id, Window()),
    "get turn": lambda to, me, of: to.call(me, get_turn, of.turn_id),
    "check turn": lambda to, me, of: to.call(me, check_turn, of.turn_id),
    "read events of turn": lambda to, me, of: to.call(me, read_events, of.turn_id, 0),
    "cancel turn": lambda to, me, of: to.call(me, cancel_turn, of.turn_id),
    "get result of turn": lambda to, me, of: to.call(me, get_turn_result, of.turn_id),
    "mint token": lambda to, me, of: to.call(me, mint_context_token, NewContextToken([TASKS_READ], of.id)),
    "add artifact": lambda to, me, of: to.call(me, add_artifact, NewArtifact("Plan", "Text", conversation_id=of.id)),
    "get artifact": lambda to, me, of: to.call(me, get_artifact, of.artifact.id),
    "get version of artifact": lambda to, me, of: to.call(me, get_artifact, of.artifact.id, 1),
    "list versions": lambda to, me, of: to.call(me, list_versions, of.artifact.id, Window()),
    "revise artifact": lambda to, me, of: to.call(me, revise_artifact, of.artifact.id, ArtifactRevision("Text")),
    "delete artifact": lambda to, me, of: to.call(me, delete_artifact, of.artifact.id),
}


@pytest.fixture
async def conversation(dispatcher: Dispatcher, me: Owner) -> Conversation:
    conversation = Conversation(dispatcher, me)
    await conversation.store()
    return conversation


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_deleted_conversation_is_not_found_before_it_is_removed(
    dispatcher: Dispatcher, me: Owner, conversation: Conversation, attempt: Attempt
) -> None:
    await dispatcher.call(me, delete_conversation, conversation.id)

    with pytest.raises(NotFound):
        await attempt(dispatcher, me, conversation)


async def test_deleted_conversation_is_in_no_listing_before_it_is_removed(
    replica: Replica, dispatcher: Dispatcher, me: Owner, conversation: Conversation
) -> None:
    """Its tokens are invalid in each process, and its idempotency key is that of a deleted conversation."""
    there = Dispatcher(replica(), lambda _call: None)
    await dispatcher.call(conversation.secrets[0], list_tasks)
    await dispatcher.call(me, delete_conversation, conversation.id)

    for process in (dispatcher, there):
        listed = await process.call(me, list_conversations, Window())
        assert [each.id for each in listed.items] == [conversation.kept.conversation_id]
        assert (await process.call(me, list_artifacts)).items == []
        tokens = (await process.call(me, list_context_tokens, Window())).items
        assert [token.turn_id for token in tokens] == [conversation.kept.id]
        with pytest.raises(Unauthenticated):
            await process.call(conversation.secrets[0], list_tasks)
        with pytest.raises(Conflict, match="was deleted"):
            await process.call(me, find_duplicate_turn, Idempotency("key", "0" * 64))


async def test_delete_conversation_cancels_its_running_turn(shared_database_url: str, me: Owner) -> None:
    """Subscribers of this process get the last event; those of another one find no turn when they read on."""
    async with run_process(shared_database_url) as process:
        dispatcher = process.dispatcher
        turn, kept = await started_turn(dispatcher, me, "Go"), await started_turn(dispatcher, me, "Stay")
        with process.event_bus.subscribe(me, turn.turn.id) as subscription:
            await dispatcher.call(me, delete_conversation, turn.turn.conversation_id)
            [event] = await subscription.next_events(0)

        assert event.name == "turn.cancelled"
        assert (await dispatcher.call(me, get_turn, kept.turn.id)).status == "running"
        for late in (
            dispatcher.call(me, read_events, turn.turn.id, 0),
            dispatcher.call(me, finish_turn, turn.turn.id, DONE),
            dispatcher.call(me, append_events, turn.turn.id, EventBatch(0, "Late", Usage())),
        ):
            with pytest.raises(NotFound):
                await late
        with pytest.raises(Unauthenticated):
            await dispatcher.call(turn.secret, list_tasks)


async def _remove_all(dispatcher: Dispatcher, owner: Owner) -> int:
    """Return the number of steps."""
    steps = 1
    while await dispatcher.call(owner, remove_deleted):
        steps += 1
    return steps


async def _stored_bytes(units: UnitsOfWork, owner: Owner) -> int:
    async with units.open(owner, "read") as uow:
        return await uow.quota_usage.measure_storage()


async def test_large_conversation_is_removed_in_steps(
    replica: Replica, units: UnitsOfWork, dispatcher: Dispatcher, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process can continue after a step. Turns, versions, tokens and tasks are counted; others stay."""
    monkeypatch.setattr(deletion, "REMOVED_AT_ONCE", 3)
    kept = await started_turn(dispatcher, me, "Stay")
    await dispatcher.call(me, finish_turn, kept.turn.id, DONE)
    before = await _stored_bytes(units, me)
    conversation = Conversation(dispatcher, me)
    await conversation.store(turns=7, versions=4, tokens=4)
    await dispatcher.call(me, delete_conversation, conversation.kept.conversation_id)
    await _remove_all(dispatcher, me)

    await dispatcher.call(me, delete_conversation, conversation.id)
    assert await dispatcher.call(me, remove_deleted)
    steps = await _remove_all(Dispatcher(replica(), lambda _call: None), me)

    assert steps == 4  # after one with 3 of 7 turns: 3 turns; 1 turn and 3 versions; 1 version, artifact, 3 tokens; 1
    assert [each.id for each in (await dispatcher.call(me, list_conversations, Window())).items] == [
        kept.turn.conversation_id
    ]
    assert (await dispatcher.call(me, list_tasks)).items == [replace(conversation.task, conversation_id=None)]
    left = await _stored_bytes(units, me) - before
    assert left < 4 * ROW_BYTES  # the task, and the record of the idempotency key


async def test_large_artifact_is_removed_in_steps(
    units: UnitsOfWork, dispatcher: Dispatcher, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "REMOVED_AT_ONCE", 3)
    kept = await dispatcher.call(me, add_artifact, NewArtifact("Kept", "Text"))
    before = await _stored_bytes(units, me)
    artifact = await dispatcher.call(me, add_artifact, NewArtifact("Plan", "Text"))
    for _ in range(7):
        await dispatcher.call(me, revise_artifact, artifact.id, ArtifactRevision("Text"))

    await dispatcher.call(me, delete_artifact, artifact.id)

    assert [each.id for each in (await dispatcher.call(me, list_artifacts)).items] == [kept.id]
    for hidden in (
        dispatcher.call(me, get_artifact, artifact.id),
        dispatcher.call(me, get_artifact, artifact.id, 1),
        dispatcher.call(me, list_versions, artifact.id, Window()),
        dispatcher.call(me, revise_artifact, artifact.id, ArtifactRevision("Text")),
        dispatcher.call(me, delete_artifact, artifact.id),
    ):
        with pytest.raises(NotFound, match=r"There is no such artifact\."):
            await hidden
    assert await _remove_all(dispatcher, me) == 3
    assert await _stored_bytes(units, me) == before


@pytest.mark.parametrize("use_case", [delete_conversation, delete_artifact])
async def test_repeated_delete_removes_what_a_stopped_process_has_left(
    units: UnitsOfWork, dispatcher: Dispatcher, me: Owner, use_case: Callable[[UnitOfWork, object], Awaitable[object]]
) -> None:
    """Both a repetition of the same request and the next deletion of something else."""
    conversation = Conversation(dispatcher, me)
    await conversation.store()
    await dispatcher.call(me, delete_conversation, conversation.id)
    before = await _stored_bytes(units, me)

    with pytest.raises(NotFound):
        await delete_and_remove(dispatcher, me, use_case, conversation.id)

    assert await _stored_bytes(units, me) < before - 5 * ROW_BYTES
    assert not await dispatcher.call(me, remove_deleted)


async def test_removal_of_one_user_leaves_what_another_has_deleted(
    units: UnitsOfWork, dispatcher: Dispatcher, me: Owner, you: Owner
) -> None:
    for owner in (me, you):
        conversation = Conversation(dispatcher, owner)
        await conversation.store()
        await dispatcher.call(owner, delete_conversation, conversation.id)
    before = await _stored_bytes(units, you)

    await _remove_all(dispatcher, me)

    assert await _stored_bytes(units, you) == before
