"""What the fault kit asks of whoever runs the service under test.

The kit talks HTTP, as the contract has it, and leaves everything else to a `Cluster`: starting replicas, ending them,
and making a statement slow enough to be caught inside it. `SqliteCluster` and `PostgresqlCluster` are the two there
are. Another database, or another way to run replicas, takes part by being a third: every scenario and every law of
the oracle applies to it as it is. Its replicas have to ask the model at the `Clockwork` that the kit is given.
"""

from dataclasses import dataclass
from enum import StrEnum
from signal import Signals
from typing import Protocol


class Statement(StrEnum):
    """The last write of each kind of transaction: everything is done, and nothing is committed."""

    ACCEPTING = "a turn is accepted"
    TELLING = "a piece of the answer is written down"
    CALLING = "a tool call has had its effect, and is recorded"
    FINISHING = "a turn is completed"


@dataclass(frozen=True)
class Slow:
    """A statement that takes about so long, of one user or of everybody."""

    statement: Statement
    seconds: float
    user_id: str | None = None


class Cluster(Protocol):
    """Replicas of the service on one database, counted from 0. A restarted one keeps its number."""

    name: str
    lease_s: float

    @property
    def urls(self) -> list[str | None]:
        """Where each replica is; None while it is down."""
        ...

    def token(self, user_id: str) -> str:
        """A JWT of that user that outlives the test."""
        ...

    async def start(self, nth: int) -> None:
        """Returns once the replica serves."""
        ...

    async def end(self, nth: int, signal: Signals) -> None:
        """Send SIGKILL, or SIGTERM, and return once the process is gone."""
        ...

    def send(self, nth: int, signal: Signals) -> None:
        """Send a signal, SIGSTOP or SIGCONT, and go on."""
        ...

    async def slow_down(self, *slow: Slow) -> None:
        """Slow these statements down from now on, and no others."""
        ...

    async def inside(self) -> int:
        """How many transactions are inside a slow statement now. Where only one can be, that is enough."""
        ...
