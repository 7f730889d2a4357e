"""A turn whose tools change tasks and artifacts, and which is undone, for tests."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from latchkey.application import artifacts, tasks
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.finish import PublishedTurn, TurnOutcome, cancel_turn, finish_turn
from latchkey.application.turns.read import get_turn, read_events
from latchkey.application.turns.start import StartedTurn
from latchkey.application.turns.undo import undo_turn
from latchkey.domain.artifact import ArtifactId, ArtifactWithContent
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import BUILT_IN_GRANTS, Grant, Owner
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask, Task
from latchkey.domain.tool_call import ToolInvocation, ToolOutcome
from latchkey.domain.turn import TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import TurnEvent
from tests.turns import started_turn

T = TypeVar("T")


class UndoneTurn:
    """One turn of a user. `call` runs a use case as a tool of the turn, `own` as the user."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner, started: StartedTurn) -> None:
        self.dispatcher = dispatcher
        self.owner = owner
        self.started = started
        self.id: TurnId = started.turn.id
        self.conversation_id = started.turn.conversation_id

    @classmethod
    async def start(
        cls,
        dispatcher: Dispatcher,
        owner: Owner,
        conversation_id: ConversationId | None = None,
        grants: list[Grant] | None = None,
    ) -> "UndoneTurn":
        grants = grants or list(BUILT_IN_GRANTS)
        return cls(dispatcher, owner, await started_turn(dispatcher, owner, "Go", conversation_id, grants=grants))

    async def call(
        self, use_case: Callable[..., Awaitable[object]], *args: Any, call_id: str | None = None, **kwargs: Any
    ) -> Any:
        """Return the content of the outcome, which is no error."""
        outcome = await self.outcome(use_case, *args, call_id=call_id, **kwargs)
        assert not outcome.is_error, outcome.content
        return outcome.content

    async def outcome(
        self, use_case: Callable[..., Awaitable[object]], *args: Any, call_id: str | None = None, **kwargs: Any
    ) -> ToolOutcome:
        arguments = msgspec.json.encode([args, kwargs])
        invocation = ToolInvocation(use_case.__name__, arguments, call_id)
        executor = ToolCallExecutor(self.dispatcher)
        return await executor.execute(self.started.secret, invocation, use_case, *args, **kwargs)

    async def own(self, use_case: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        return await self.dispatcher.call(self.owner, use_case, *args, **kwargs)

    async def finish(self, status: TurnStatus = "completed") -> None:
        await self.own(finish_turn, self.id, TurnOutcome(status, Usage(), "Done."))

    async def cancel(self) -> None:
        await self.own(cancel_turn, self.id)

    async def undo(self) -> PublishedTurn:
        return await self.own(undo_turn, self.id)

    async def read(self) -> PublishedTurn:
        return await self.own(get_turn, self.id)

    async def events(self, after: int = 0) -> list[TurnEvent]:
        return (await self.own(read_events, self.id, after)).events

    async def add_task(self, title: str = "Milk", **values: Any) -> Task:
        """Add a task as the user."""
        return await self.own(tasks.add_task, NewTask(title, **values))


async def read_tasks(dispatcher: Dispatcher, owner: Owner) -> dict[str, Task]:
    """Return all tasks by their titles."""
    page = await dispatcher.call(owner, tasks.list_tasks, None, 200)
    return {task.title: task for task in page.items}


async def read_artifacts(dispatcher: Dispatcher, owner: Owner) -> dict[ArtifactId, ArtifactWithContent]:
    """Return all artifacts with their contents."""
    page = await dispatcher.call(owner, artifacts.find_artifacts, None, None, Window(200))
    contents = [await dispatcher.call(owner, artifacts.get_artifact, item.id) for item in page.items]
    return {artifact.id: artifact for artifact in contents}
