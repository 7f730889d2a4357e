"""A running turn on two replicas, for tests."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import Raw

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import PublishedTurn, TurnOutcome, TurnResult, cancel_turn, finish_turn
from latchkey.application.turns.read import get_turn, read_events
from latchkey.application.turns.record import EventBatch, append_events, renew_turn
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation, ToolOutcome, ToolRequest
from latchkey.domain.turn import TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import TurnEvent
from tests.builders import LIMITS
from tests.turns import started_turn

SPENT = Usage(2, 30, 4)
MILK = b'{"title":"Milk"}'
PAST_LEASE = timedelta(seconds=-1)


def a_request(call_id: str, arguments: bytes = MILK) -> ToolRequest:
    return ToolRequest(call_id, "add_task", Raw(arguments))


class RunningTurn:
    """Operations on one turn. `on` is the index of the replica."""

    def __init__(self, dispatchers: list[Dispatcher], owner: Owner) -> None:
        self.dispatchers = dispatchers
        self.owner = owner
        self.started: StartedTurn

    @property
    def id(self) -> TurnId:
        return self.started.turn.id

    async def start(self, where: ConversationId | None = None, terms: AcceptanceLimits = LIMITS) -> None:
        self.started = await started_turn(self.dispatchers[0], self.owner, "Go", where, limits=terms)

    async def append_text(self, text: str, offset: int = 0, request: ToolRequest | None = None, on: int = 0) -> None:
        await self.dispatchers[on].call(self.owner, append_events, self.id, EventBatch(offset, text, SPENT, request))

    async def announce(self, call_id: str, on: int = 0) -> None:
        """Announce a call before any text is written."""
        await self.append_text("", 0, a_request(call_id), on)

    async def execute(
        self, use_case: Callable[..., Awaitable[object]], *args: Any, call_id: str | None = None, on: int = 0
    ) -> ToolOutcome:
        invocation = ToolInvocation(use_case.__name__, msgspec.json.encode(args), call_id)
        return await ToolCallExecutor(self.dispatchers[on], max_calls=10_000).execute(
            self.started.secret, invocation, use_case, *args
        )

    async def add(self, title: str = "Milk", call_id: str | None = None, on: int = 0) -> ToolOutcome:
        """Add a task by a tool call of the turn."""
        return await self.execute(add_task, NewTask(title), call_id=call_id, on=on)

    async def finish(self, answer: str = "Done.", status: TurnStatus = "completed", on: int = 0) -> TurnResult:
        return await self.dispatchers[on].call(self.owner, finish_turn, self.id, TurnOutcome(status, SPENT, answer))

    async def cancel(self, on: int = 0) -> PublishedTurn:
        return await self.dispatchers[on].call(self.owner, cancel_turn, self.id)

    async def renew(self, lease: timedelta, on: int = 0) -> None:
        await self.dispatchers[on].call(self.owner, renew_turn, self.id, lease)

    async def expire_lease(self) -> None:
        """Let the lease expire, as if the process had died."""
        await self.renew(PAST_LEASE)

    async def read(self, on: int = 0) -> PublishedTurn:
        return await with_expiry(self.dispatchers[on], self.owner, get_turn, self.id)

    async def events(self, after: int = 0) -> list[TurnEvent]:
        """Return all events after this number."""
        events: list[TurnEvent] = []
        while log := (await self.dispatchers[0].call(self.owner, read_events, self.id, after)).events:
            events += log
            after = log[-1].seq
        return events

    async def event_names(self) -> list[str]:
        return [event.name for event in await self.events()]

    async def text(self) -> str:
        """Return the answer in the event log: the deltas, joined."""
        deltas = [event.body for event in await self.events() if event.name == "message.delta"]
        return "".join(msgspec.json.decode(body)["text"] for body in deltas)

    async def task_titles(self) -> list[str]:
        """Return the titles of all tasks, oldest first."""
        titles: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.dispatchers[0].call(self.owner, list_tasks, None, 200, cursor)
            titles += [task.title for task in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return titles[::-1]
