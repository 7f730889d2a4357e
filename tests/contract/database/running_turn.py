"""A running turn on two replicas, for tests."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import Raw

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor, ToolInvocation, ToolOutcome
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import TurnOutcome, TurnResult, cancel_turn, finish_turn
from latchkey.application.turns.read import PublishedTurn, get_turn, read_events
from latchkey.application.turns.record import EventBatch, append_events, renew_turn
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn
from latchkey.domain.agent import ToolRequest
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.task import NewTask
from latchkey.domain.turn import TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import TurnEvent
from tests.builders import LIMITS
from tests.turns import started_turn

SPENT = Usage(2, 30, 4)
MILK = b'{"title":"Milk"}'
LAPSED = timedelta(seconds=-1)


def a_request(call_id: str, arguments: bytes = MILK) -> ToolRequest:
    return ToolRequest(call_id, "add_task", Raw(arguments))


class RunningTurn:
    """Everything is done on the first replica unless `on` names the other one."""

    def __init__(self, apps: list[Dispatcher], owner: Owner) -> None:
        self.apps = apps
        self.owner = owner
        self.accepted: StartedTurn

    @property
    def id(self) -> TurnId:
        return self.accepted.turn.id

    async def begin(self, where: ConversationId | None = None, terms: AcceptanceLimits = LIMITS) -> None:
        self.accepted = await started_turn(self.apps[0], self.owner, "Go", where, limits=terms)

    async def tell(self, text: str, before: int = 0, request: ToolRequest | None = None, on: int = 0) -> None:
        await self.apps[on].call(self.owner, append_events, self.id, EventBatch(before, text, SPENT, request))

    async def announce(self, call_id: str, on: int = 0) -> None:
        """Before anything else is told."""
        await self.tell("", 0, a_request(call_id), on)

    async def execute(
        self, use_case: Callable[..., Awaitable[object]], *given: Any, call_id: str | None = None, on: int = 0
    ) -> ToolOutcome:
        invocation = ToolInvocation(use_case.__name__, msgspec.json.encode(given), call_id)
        return await ToolCallExecutor(self.apps[on], max_calls=10_000).execute(
            self.accepted.secret, invocation, use_case, *given
        )

    async def add(self, title: str = "Milk", call_id: str | None = None, on: int = 0) -> ToolOutcome:
        """A task, by the turn's tool."""
        return await self.execute(add_task, NewTask(title), call_id=call_id, on=on)

    async def finish(self, told: str = "Done.", status: TurnStatus = "completed", on: int = 0) -> TurnResult:
        return await self.apps[on].call(self.owner, finish_turn, self.id, TurnOutcome(status, SPENT, told))

    async def cancel(self, on: int = 0) -> PublishedTurn:
        return await self.apps[on].call(self.owner, cancel_turn, self.id)

    async def renew(self, lease: timedelta, on: int = 0) -> None:
        await self.apps[on].call(self.owner, renew_turn, self.id, lease)

    async def lapse(self) -> None:
        """Its lease passes, as when its process has died."""
        await self.renew(LAPSED)

    async def look(self, on: int = 0) -> PublishedTurn:
        return await with_expiry(self.apps[on], self.owner, get_turn, self.id)

    async def events(self, after: int = 0) -> list[TurnEvent]:
        """All of its log that follows."""
        found: list[TurnEvent] = []
        while log := (await self.apps[0].call(self.owner, read_events, self.id, after)).events:
            found += log
            after = log[-1].seq
        return found

    async def names(self) -> list[str]:
        return [event.name for event in await self.events()]

    async def text(self) -> str:
        """Its deltas, joined."""
        deltas = [event.body for event in await self.events() if event.name == "message.delta"]
        return "".join(msgspec.json.decode(body)["text"] for body in deltas)

    async def titles(self) -> list[str]:
        """Of all the tasks that there are, the oldest first."""
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.apps[0].call(self.owner, list_tasks, None, 200, cursor)
            found += [task.title for task in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found[::-1]
