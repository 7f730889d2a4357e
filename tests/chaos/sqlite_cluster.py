"""A cluster on SQLite: one replica, which is restarted."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.chaos.cluster import Slow, Statement
from tests.chaos.replicas import Replicas

TRIGGERS = {
    Statement.ACCEPTING: "INSERT ON context_tokens WHEN NEW.turn_id IS NOT NULL",
    Statement.TELLING: "INSERT ON turn_events WHEN NEW.name = 'message.delta'",
    Statement.CALLING: "INSERT ON turn_events WHEN NEW.name = 'tool_call.completed'",
    Statement.FINISHING: "UPDATE ON turns WHEN OLD.status = 'running' AND NEW.status = 'completed'",
}
STEPS_PER_S = 5_000_000
LONG_S = 0.1
"""No statement holds the database so long unless it is slowed down."""

LABOUR = f"""
SELECT count(*) FROM (
    WITH RECURSIVE labour(step) AS (
        SELECT 1 UNION ALL
        SELECT step + 1 FROM labour
        WHERE step < (
            SELECT max(seconds) * {STEPS_PER_S} FROM slowness
            WHERE statement = '%s' AND coalesce(user_id, NEW.user_id) = NEW.user_id
        )
    ) SELECT step FROM labour
);
"""
"""SQLite cannot sleep, but count."""


class SqliteCluster(Replicas):
    name = "sqlite"

    def __init__(self, home: Path, database_url: str, model_url: str) -> None:
        super().__init__(home, 1, {"LATCHKEY_DATABASE_URL": database_url}, model_url)
        self._path = database_url.partition("///")[2]
        with closing(self._connect()) as connection:
            connection.execute("CREATE TABLE slowness (statement TEXT, seconds REAL, user_id TEXT)")
            for statement, when in TRIGGERS.items():
                labour = LABOUR % statement.name
                connection.execute(f"CREATE TRIGGER slow_{statement.name} AFTER {when} BEGIN {labour} END")

    async def slow_down(self, *slow: Slow) -> None:
        await asyncio.to_thread(self._slow_down, [(one.statement.name, one.seconds, one.user_id) for one in slow])

    async def inside(self) -> int:
        return int(await asyncio.to_thread(self._is_held))

    def _slow_down(self, rows: list[tuple[str, float, str | None]]) -> None:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM slowness")
            connection.executemany("INSERT INTO slowness VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

    def _is_held(self) -> bool:
        """Whether somebody else writes, and goes on doing so."""
        until = time.monotonic() + LONG_S
        with closing(self._connect(patience_s=0)) as connection:
            while time.monotonic() < until:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    continue
                connection.execute("ROLLBACK")
                return False
        return True

    def _connect(self, patience_s: float = 30) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=patience_s, isolation_level=None)
