"""The points of a turn at which a process can crash, and a way to hold a turn at one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from tests.chaos.client_driver import ClientDriver
from tests.chaos.cluster import Cluster, SlowStatement, Statement
from tests.chaos.history import History, SentMessage, TurnEvent
from tests.chaos.scripted_model import Hold, ScriptedModel, message_text
from tests.polling import wait_until

WORDS = 3
SLOW_S = 3.0
"""Long enough that the test finds the statement running, and that all turns reach their points."""


@dataclass(frozen=True)
class Position:
    """Inside a transaction (at `statement`), or between two, while the turn waits for the model."""

    statement: Statement | None = None
    request: int = 1
    words: int = 0


class CrashPoint(Enum):
    """Every distinct position of a turn with one tool call."""

    STARTING = Position(Statement.START_TURN)
    STARTED = Position()
    APPENDING_FIRST_DELTA = Position(Statement.APPEND_DELTA)
    FIRST_DELTA = Position(words=1)
    IN_TOOL_TRANSACTION = Position(Statement.RECORD_TOOL_CALL)
    AFTER_TOOL_COMMIT = Position(request=2)
    FINISHING = Position(Statement.FINISH_TURN)

    @property
    def is_started(self) -> bool:
        """Whether the turn is committed at this point."""
        return self is not CrashPoint.STARTING

    @property
    def has_effect(self) -> bool:
        """Whether the task of the turn is committed at this point."""
        return self in {CrashPoint.AFTER_TOOL_COMMIT, CrashPoint.FINISHING}

    @property
    def is_retried(self) -> bool:
        """Whether the next attempt makes the tool call: not if it is announced, as it could have had its effect."""
        return not self.has_effect and self is not CrashPoint.IN_TOOL_TRANSACTION


class ApprovalPoint(Enum):
    """Every distinct position of a turn with one call that the user approves."""

    ASKING = Position(Statement.ASK)
    ASKED = Position(Statement.WAIT)
    DECIDING = Position(Statement.DECIDE)
    DECIDED = Position(Statement.RESUME_TURN)
    RESUMED = Position(request=2)


@dataclass
class HeldTurn:
    """A turn that is held at one point, with the history of its client. Each has its own user."""

    point: CrashPoint | ApprovalPoint
    user: str
    message: SentMessage
    hold: Hold | None
    history: History = field(default_factory=History)

    @classmethod
    def at(cls, point: CrashPoint | ApprovalPoint, name: str, *, is_streamed: bool) -> Self:
        user = f"{name}_{point.name.lower()}"
        position = point.value
        hold = None if position.statement else Hold(user, position.request, position.words)
        tasks, asks = (1, 0) if isinstance(point, CrashPoint) else (0, 1)
        message = SentMessage(user, user, {"message": message_text(user, tasks, WORDS, asks)}, user, is_streamed)
        return cls(point, user, message, hold)

    @property
    def slow_statements(self) -> list[SlowStatement]:
        statement = self.point.value.statement
        return [SlowStatement(statement, SLOW_S, self.user)] if statement else []

    async def is_at_hold(self) -> bool:
        """Whether the turn has reached its hold. Always true for a point inside a transaction."""
        if self.hold is None:
            return True
        received = [event.name for event in self.received_events]
        return self.hold.reached.is_set() and (not self.point.value.words or "message.delta" in received)

    @property
    def received_events(self) -> list[TurnEvent]:
        return [event for events in self.history.events.values() for event in events.values()]


@asynccontextmanager
async def delays(
    cluster: Cluster, model: ScriptedModel, slow: list[SlowStatement], holds: list[Hold]
) -> AsyncIterator[None]:
    """Make these statements slow and hold these answers of the model, until exit."""
    model.holds += holds
    await cluster.slow_down(*slow)
    try:
        yield
    finally:
        await cluster.slow_down()
        for hold in model.holds:
            hold.released.set()
        model.holds.clear()


@asynccontextmanager
async def hold_turns(
    turns: list[HeldTurn], cluster: Cluster, model: ScriptedModel
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Start the turns on replica 0 and enter when each is at its point. All are released on exit."""
    slow = [statement for turn in turns for statement in turn.slow_statements]

    async def run(turn: HeldTurn) -> None:
        token = cluster.token(turn.user)
        async with ClientDriver(cluster, turn.user, token, turn.history) as client:
            await client.send(turn.message, 0)

    async def are_at_points() -> bool:
        held = [await turn.is_at_hold() for turn in turns]
        return all(held) and await cluster.count_slow_transactions() == len(slow)

    async with delays(cluster, model, slow, [turn.hold for turn in turns if turn.hold]):
        tasks = [asyncio.create_task(run(turn)) for turn in turns]
        await wait_until(are_at_points)
        yield tasks


async def wait_until_slow(cluster: Cluster) -> None:
    """Wait until a transaction is inside a slow statement."""

    async def is_slow() -> bool:
        return await cluster.count_slow_transactions() > 0

    await wait_until(is_slow)
