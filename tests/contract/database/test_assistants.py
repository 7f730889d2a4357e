"""Turns of assistants: which assistant answers, what its turns record, and what their tokens allow."""

from typing import Any
from uuid import uuid4

import pytest
from msgspec import Raw

from latchkey.application.conversations import add_conversation, get_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.read import get_turn
from latchkey.application.turns.start import StartedTurn, TurnProfile, TurnProfiles, start_turn
from latchkey.domain.conversation import ConversationId, NewConversation
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import AgentNotConfigured, Forbidden, Invalid, NotFound
from latchkey.domain.message import NewMessage
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn import Usage
from tests.builders import LIMITS, TASK_GRANTS, a_conversation
from tests.turns import UnusedAgent

PROFILES = TurnProfiles(
    {
        "default": TurnProfile(UnusedAgent(), "", TASK_GRANTS, digest="d1"),
        "shop": TurnProfile(
            UnusedAgent(),
            "",
            TASK_GRANTS,
            tools=("add_task",),
            digest="s1",
            models=("small", "large"),
            history_turns=1,
        ),
        "idle": TurnProfile(None, "", []),
    },
    files=TurnProfile(UnusedAgent(), "", TASK_GRANTS),
)


class Client:
    """A user who talks to assistants."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner) -> None:
        self.dispatcher = dispatcher
        self.owner = owner

    async def start(self, *, profiles: TurnProfiles = PROFILES, **message: Any) -> StartedTurn:
        new_message = NewMessage("Hello", **message)
        started = await self.dispatcher.call(self.owner, start_turn, new_message, profiles, LIMITS)
        assert isinstance(started, StartedTurn)
        return started

    async def chat(self, **message: Any) -> StartedTurn:
        """Start a turn and end it, so that the conversation takes the next message."""
        started = await self.start(**message)
        outcome = TurnOutcome("completed", Usage(), "Done.")
        await self.dispatcher.call(self.owner, finish_turn, started.turn.id, outcome)
        return started

    async def assistant_of(self, id: ConversationId) -> str | None:
        return (await self.dispatcher.call(self.owner, get_conversation, id)).assistant


@pytest.fixture
def client(dispatcher: Dispatcher, me: Owner) -> Client:
    return Client(dispatcher, me)


@pytest.mark.parametrize("body", [{}, {"assistant": None}, {"assistant": "default"}])
async def test_conversation_begins_with_the_default_assistant(client: Client, body: dict[str, Any]) -> None:
    turn = (await client.chat(**body)).turn

    assert (turn.assistant, turn.assistant_digest) == ("default", "d1")
    assert await client.assistant_of(turn.conversation_id) == "default"


async def test_conversation_keeps_the_assistant_it_began_with(client: Client) -> None:
    first = (await client.chat(assistant="shop")).turn
    later = [(await client.chat(conversation_id=first.conversation_id, assistant=name)).turn for name in (None, "shop")]
    with pytest.raises(Invalid) as refused:
        await client.start(conversation_id=first.conversation_id, assistant="default")

    assert [(turn.assistant, turn.assistant_digest) for turn in (first, *later)] == [("shop", "s1")] * 3
    errors: Any = refused.value.members["errors"]
    (error,) = errors
    assert (error["path"], "`shop`" in error["message"]) == ("$.assistant", True)


async def test_empty_conversation_gets_its_assistant_with_the_first_message(client: Client) -> None:
    empty = await client.dispatcher.call(client.owner, add_conversation, NewConversation())
    assert empty.assistant is None
    await client.chat(conversation_id=empty.id, assistant="shop")

    assert await client.assistant_of(empty.id) == "shop"


async def test_conversation_of_an_earlier_release_has_the_default_assistant(client: Client, units: UnitsOfWork) -> None:
    old = a_conversation()
    async with units.open(client.owner, "write") as uow:
        await uow.conversations.add(old, messages=2)
        await uow.commit()
    with pytest.raises(Invalid, match=r"\$\.assistant: Expected `default`"):
        await client.start(conversation_id=old.id, assistant="shop")

    assert (await client.chat(conversation_id=old.id)).turn.assistant == "default"


@pytest.mark.parametrize(
    ("message", "path", "text"),
    [
        ({"assistant": "nobody"}, "$.assistant", "Expected one of default, idle, shop"),
        ({"model": "small"}, "$.model", "none: this turn has no choice"),
        ({"assistant": "shop", "model": "huge"}, "$.model", "Expected one of small, large"),
        ({"assistant": "shop", "model": "small", "artifact_generation": True}, "$.model", "none"),
    ],
)
async def test_unknown_assistant_or_model_is_invalid_and_stores_nothing(
    client: Client, units: UnitsOfWork, message: dict[str, Any], path: str, text: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await client.start(**message)

    errors: Any = refused.value.members["errors"]
    (error,) = errors
    assert error["path"] == path
    assert text in error["message"]
    async with units.open(client.owner, "read") as uow:
        assert await uow.turns.list_running() == []


async def test_assistant_removed_from_the_service_is_invalid(client: Client) -> None:
    first = (await client.chat(assistant="shop")).turn
    without_shop = TurnProfiles({"default": PROFILES.chat["default"]}, PROFILES.files)

    with pytest.raises(Invalid, match=r"\$\.assistant: Expected one of default"):
        await client.start(profiles=without_shop, conversation_id=first.conversation_id)


async def test_assistant_without_agent_is_not_configured(client: Client) -> None:
    with pytest.raises(AgentNotConfigured):
        await client.start(assistant="idle")


async def test_file_turn_records_the_assistant_of_its_conversation_without_digest(client: Client) -> None:
    turn = (await client.chat(assistant="shop", artifact_generation=True)).turn

    assert (turn.assistant, turn.assistant_digest) == ("shop", None)


async def test_assistant_limits_the_history(client: Client) -> None:
    histories = []
    for name in ("default", "shop"):
        where = (await client.chat(assistant=name)).turn.conversation_id
        await client.chat(conversation_id=where)
        histories.append(len((await client.chat(conversation_id=where)).history))

    assert histories == [2, 1]


async def test_metadata_is_stored_with_the_turn(client: Client) -> None:
    metadata = {f"key {n}": "päge ☃" for n in range(16)}
    turn = (await client.chat(metadata=metadata)).turn
    published = await client.dispatcher.call(client.owner, get_turn, turn.id)

    assert published.metadata == metadata
    assert (await client.dispatcher.call(client.owner, get_turn, (await client.chat()).turn.id)).metadata == {}


async def test_token_of_an_assistants_turn_may_run_only_its_tools(client: Client) -> None:
    """Even if it has the grant of another tool: its call has no effect and is not recorded."""
    started = await client.start(assistant="shop")
    executor = ToolCallExecutor(client.dispatcher)
    allowed = await executor.execute(
        started.secret, ToolInvocation("add_task", b'{"title":"Milk"}', "a"), add_task, NewTask("Milk")
    )
    for call_id in (None, "b"):
        with pytest.raises(Forbidden):
            await executor.execute(started.secret, ToolInvocation("list_tasks", b"{}", call_id), list_tasks)
        with pytest.raises(Forbidden):
            await executor.record_failure(
                started.secret, ToolInvocation("list_tasks", b"{}", call_id), list_tasks, NotFound.of("task")
            )
    turn = await client.dispatcher.call(client.owner, get_turn, started.turn.id)

    assert started.scope.tools == frozenset({"add_task"})
    assert not allowed.is_error
    assert [(call.name, call.arguments) for call in turn.tool_calls] == [("add_task", Raw(b'{"title":"Milk"}'))]


async def test_assistant_of_another_user_is_not_shown(client: Client) -> None:
    where = (await client.chat(assistant="shop")).turn.conversation_id
    stranger = Client(client.dispatcher, Owner(type(client.owner.user_id)(f"you-{uuid4().hex}")))

    with pytest.raises(NotFound):
        await stranger.start(conversation_id=where, assistant="default")
