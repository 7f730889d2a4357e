"""The named points of a turn, and how a turn is brought to one and kept there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from tests.chaos.clockwork import Clockwork, Hold, asking
from tests.chaos.cluster import Cluster, Slow, Statement
from tests.chaos.record import Record, Sent
from tests.chaos.talker import Talker
from tests.polling import wait_until

WORDS = 3
SLOWLY_S = 3.0
"""Long enough to be found inside a statement, and for others to get there as well."""


@dataclass(frozen=True)
class Moment:
    """Where a turn is: in a transaction, or between two, where it waits for the model."""

    statement: Statement | None = None
    request: int = 1
    words: int = 0


class Point(Enum):
    """Every moment of a turn with one tool call that is unlike the others."""

    BEING_ACCEPTED = Moment(Statement.ACCEPTING)
    ACCEPTED = Moment()
    IN_THE_FIRST_DELTA = Moment(Statement.TELLING)
    FIRST_DELTA = Moment(words=1)
    INSIDE_THE_TOOLS_TRANSACTION = Moment(Statement.CALLING)
    AFTER_ITS_COMMIT = Moment(request=2)
    BEFORE_THE_LAST_COMMIT = Moment(Statement.FINISHING)

    @property
    def is_accepted(self) -> bool:
        """Whether the turn is there by then."""
        return self is not Point.BEING_ACCEPTED

    @property
    def has_effect(self) -> bool:
        """Whether the turn's task is there by then."""
        return self in {Point.AFTER_ITS_COMMIT, Point.BEFORE_THE_LAST_COMMIT}


@dataclass
class Traveller:
    """A user who goes to one point, and what they remember of it."""

    point: Point
    user: str
    sent: Sent
    hold: Hold | None
    record: Record = field(default_factory=Record)

    @classmethod
    def to(cls, point: Point, name: str, *, is_streamed: bool) -> Self:
        user = f"{name}_{point.name.lower()}"
        where = point.value
        hold = None if where.statement else Hold(user, where.request, where.words)
        return cls(point, user, Sent(user, user, {"message": asking(user, 1, WORDS)}, user, is_streamed), hold)

    @property
    def slow(self) -> list[Slow]:
        statement = self.point.value.statement
        return [Slow(statement, SLOWLY_S, self.user)] if statement else []

    async def has_arrived(self) -> bool:
        """For a point between two transactions."""
        if self.hold is None:
            return True
        told = [event.name for seen in self.record.events.values() for event in seen.values()]
        return self.hold.reached.is_set() and (not self.point.value.words or "message.delta" in told)


@asynccontextmanager
async def at_their_points(
    travellers: list[Traveller], cluster: Cluster, model: Clockwork
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Their turns, on the first replica, each kept at its point meanwhile. Afterwards nothing keeps them."""
    slow = [one for traveller in travellers for one in traveller.slow]
    model.holds += [traveller.hold for traveller in travellers if traveller.hold]
    await cluster.slow_down(*slow)

    async def talk(traveller: Traveller) -> None:
        token = cluster.token(traveller.user)
        async with Talker(cluster, traveller.user, token, traveller.record) as talker:
            await talker.say(traveller.sent, 0)

    async def have_arrived() -> bool:
        arrived = [await traveller.has_arrived() for traveller in travellers]
        return all(arrived) and await cluster.inside() == len(slow)

    talks = [asyncio.create_task(talk(traveller)) for traveller in travellers]
    try:
        await wait_until(have_arrived)
        yield talks
    finally:
        await cluster.slow_down()
        for hold in model.holds:
            hold.released.set()
        model.holds.clear()
