"""A cluster on SQLite: one replica, which is restarted."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.chaos.cluster import SlowStatement, Statement
from tests.chaos.replicas import LEASE_S, Replicas

TRIGGERS = {
    Statement.START_TURN: "INSERT ON context_tokens WHEN NEW.turn_id IS NOT NULL",
    Statement.APPEND_DELTA: "INSERT ON turn_events WHEN NEW.name = 'message.delta'",
    Statement.RECORD_TOOL_CALL: "INSERT ON turn_events WHEN NEW.name = 'tool_call.completed'",
    Statement.FINISH_TURN: "UPDATE ON turns WHEN OLD.status = 'running' AND NEW.status = 'completed'",
    Statement.RELEASE_TURN: "UPDATE ON turns WHEN NEW.lease_until = NEW.started_at",
    Statement.RESUME_TURN: "INSERT ON turn_events WHEN NEW.name = 'turn.resumed'",
    Statement.ASK: "INSERT ON turn_events WHEN NEW.name = 'approval.requested'",
    Statement.WAIT: "INSERT ON turn_events WHEN NEW.name = 'turn.waiting'",
    Statement.DECIDE: "INSERT ON turn_events WHEN NEW.name = 'approval.decided'",
}
STEPS_PER_S = 5_000_000
MAX_FAST_WRITE_S = 0.1
"""A write lock that is held longer than this belongs to a slow statement."""

BUSY_LOOP = f"""
SELECT count(*) FROM (
    WITH RECURSIVE steps(step) AS (
        SELECT 1 UNION ALL
        SELECT step + 1 FROM steps
        WHERE step < (
            SELECT max(seconds) * {STEPS_PER_S} FROM delays
            WHERE statement = '%s' AND coalesce(user_id, NEW.user_id) = NEW.user_id
        )
    ) SELECT step FROM steps
);
"""
"""A delay: SQLite has no sleep function, so the trigger counts."""


class SqliteCluster(Replicas):
    name = "sqlite"

    def __init__(self, home: Path, database_url: str, model_url: str, lease_s: float = LEASE_S) -> None:
        super().__init__(home, 1, {"LATCHKEY_DATABASE_URL": database_url}, model_url, lease_s)
        self._path = database_url.partition("///")[2]
        with closing(self._connect()) as connection:
            connection.execute("CREATE TABLE delays (statement TEXT, seconds REAL, user_id TEXT)")
            for statement, event in TRIGGERS.items():
                loop = BUSY_LOOP % statement.name
                connection.execute(f"CREATE TRIGGER delay_{statement.name} AFTER {event} BEGIN {loop} END")

    async def slow_down(self, *statements: SlowStatement) -> None:
        rows = [(slow.statement.name, slow.seconds, slow.user_id) for slow in statements]
        await asyncio.to_thread(self._set_delays, rows)

    async def count_slow_transactions(self) -> int:
        return int(await asyncio.to_thread(self._is_write_locked))

    def _set_delays(self, rows: list[tuple[str, float, str | None]]) -> None:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM delays")
            connection.executemany("INSERT INTO delays VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

    def _is_write_locked(self) -> bool:
        """Whether another connection holds the write lock for longer than a fast write takes."""
        deadline = time.monotonic() + MAX_FAST_WRITE_S
        with closing(self._connect(timeout_s=0)) as connection:
            while time.monotonic() < deadline:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    continue
                connection.execute("ROLLBACK")
                return False
        return True

    def _connect(self, timeout_s: float = 30) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=timeout_s, isolation_level=None)
