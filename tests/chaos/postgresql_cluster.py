"""A cluster on PostgreSQL: two replicas with one database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.chaos.cluster import SlowStatement, Statement
from tests.chaos.replicas import LEASE_S, Replicas

SIZE = 2
TRIGGERS = {
    Statement.START_TURN: "INSERT ON context_tokens FOR EACH ROW WHEN (NEW.turn_id IS NOT NULL)",
    Statement.APPEND_DELTA: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'message.delta')",
    Statement.RECORD_TOOL_CALL: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'tool_call.completed')",
    Statement.FINISH_TURN: "UPDATE ON turns FOR EACH ROW WHEN (OLD.status = 'running' AND NEW.status = 'completed')",
    Statement.RELEASE_TURN: "UPDATE ON turns FOR EACH ROW WHEN (NEW.lease_until = NEW.started_at)",
    Statement.RESUME_TURN: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'turn.resumed')",
    Statement.ASK: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'approval.requested')",
    Statement.WAIT: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'turn.waiting')",
    Statement.DECIDE: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'approval.decided')",
}
DELAY_FUNCTION = """
CREATE TABLE delays (statement text, seconds double precision, user_id text);
CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_sleep(max(seconds)) FROM public.delays
        WHERE statement = TG_ARGV[0] AND coalesce(user_id, NEW.user_id) = NEW.user_id;
    RETURN NEW;
END $$;
"""
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


class PostgresqlCluster(Replicas):
    name = "postgresql"

    def __init__(self, home: Path, database_url: str, model_url: str, lease_s: float = LEASE_S) -> None:
        super().__init__(home, SIZE, {"LATCHKEY_DATABASE_URL": database_url}, model_url, lease_s)
        self._database_url = database_url

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Self]:
        triggers = [
            f"CREATE TRIGGER delay_{statement.name} AFTER {event} EXECUTE FUNCTION delay('{statement.name}')"
            for statement, event in TRIGGERS.items()
        ]
        async with self._connected() as connection:
            await connection.execute(";".join((DELAY_FUNCTION, *triggers)))
        async with super().up() as cluster:
            yield cluster

    async def slow_down(self, *statements: SlowStatement) -> None:
        rows = [(slow.statement.name, slow.seconds, slow.user_id) for slow in statements]
        async with self._connected() as connection, connection.transaction():
            await connection.execute("DELETE FROM delays")
            await connection.executemany("INSERT INTO delays VALUES ($1, $2, $3)", rows)

    async def count_slow_transactions(self) -> int:
        async with self._connected() as connection:
            return int(await connection.fetchval(SLEEPING))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        connection = await asyncpg.connect(self._database_url)
        try:
            yield connection
        finally:
            await connection.close()
