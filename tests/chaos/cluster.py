"""The interface between the fault injection tests and the service under test.

The tests use the HTTP API of the contract. Everything else is up to a `Cluster`: starting and ending replicas, and
making a statement slow enough that a kill hits it. `SqliteCluster` and `PostgresqlCluster` implement it. Another
database, or another way to run replicas, needs only a third implementation: every scenario and every invariant applies
to it unchanged. Its replicas must use the `ScriptedModel` of the tests, and try a turn `ATTEMPTS` times.
"""

from dataclasses import dataclass
from enum import StrEnum
from signal import Signals
from typing import Protocol

from tests.chaos.history import ATTEMPTS


class Statement(StrEnum):
    """The last write of each kind of transaction: all effects are in the transaction, which is not committed."""

    START_TURN = "a turn is started"
    APPEND_DELTA = "a part of the answer is appended"
    RECORD_TOOL_CALL = "a tool call has had its effect and is recorded"
    FINISH_TURN = "a turn is completed"
    RELEASE_TURN = "a stopping process hands a turn over"
    RESUME_TURN = "a turn is continued"
    ASK = "the user is asked about a tool call"
    WAIT = "a turn begins to wait for the user"
    DECIDE = "the user's decision is stored"


@dataclass(frozen=True)
class SlowStatement:
    """A statement that takes about `seconds`, for one user or (`None`) for all users."""

    statement: Statement
    seconds: float
    user_id: str | None = None


class Cluster(Protocol):
    """Replicas of the service on one database, numbered from 0. A restarted replica keeps its number."""

    name: str
    lease_s: float

    @property
    def urls(self) -> list[str | None]:
        """The URL of each replica; None while it is down."""
        ...

    def token(self, user_id: str) -> str:
        """A JWT of that user that does not expire during the test."""
        ...

    async def start(self, number: int, attempts: int = ATTEMPTS) -> None:
        """Start the replica. Returns once it serves requests."""
        ...

    async def terminate(self, number: int, signal: Signals) -> None:
        """Send SIGKILL or SIGTERM. Returns once the process has ended."""
        ...

    def send_signal(self, number: int, signal: Signals) -> None:
        """Send SIGSTOP or SIGCONT, without waiting."""
        ...

    async def slow_down(self, *statements: SlowStatement) -> None:
        """Make these statements slow, and all others fast again."""
        ...

    async def count_slow_transactions(self) -> int:
        """The number of transactions that are inside a slow statement now. On SQLite at most 1."""
        ...
