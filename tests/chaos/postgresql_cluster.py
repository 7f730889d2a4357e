"""A cluster on PostgreSQL: two replicas of one database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.chaos.cluster import Slow, Statement
from tests.chaos.replicas import Replicas

SIZE = 2
TRIGGERS = {
    Statement.ACCEPTING: "INSERT ON context_tokens FOR EACH ROW WHEN (NEW.turn_id IS NOT NULL)",
    Statement.TELLING: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'message.delta')",
    Statement.CALLING: "INSERT ON turn_events FOR EACH ROW WHEN (NEW.name = 'tool_call.completed')",
    Statement.FINISHING: "UPDATE ON turns FOR EACH ROW WHEN (OLD.status = 'running' AND NEW.status = 'completed')",
}
SLEEP = """
CREATE TABLE slowness (statement text, seconds double precision, user_id text);
CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_sleep(max(seconds)) FROM public.slowness
        WHERE statement = TG_ARGV[0] AND coalesce(user_id, NEW.user_id) = NEW.user_id;
    RETURN NEW;
END $$;
"""
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


class PostgresqlCluster(Replicas):
    name = "postgresql"

    def __init__(self, home: Path, database_url: str, model_url: str) -> None:
        super().__init__(home, SIZE, {"LATCHKEY_DATABASE_URL": database_url}, model_url)
        self._database_url = database_url

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Self]:
        triggers = [
            f"CREATE TRIGGER slow_{one.name} AFTER {when} EXECUTE FUNCTION slow_down('{one.name}')"
            for one, when in TRIGGERS.items()
        ]
        async with self._connected() as connection:
            await connection.execute(";".join((SLEEP, *triggers)))
        async with super().up() as cluster:
            yield cluster

    async def slow_down(self, *slow: Slow) -> None:
        rows = [(one.statement.name, one.seconds, one.user_id) for one in slow]
        async with self._connected() as connection, connection.transaction():
            await connection.execute("DELETE FROM slowness")
            await connection.executemany("INSERT INTO slowness VALUES ($1, $2, $3)", rows)

    async def inside(self) -> int:
        async with self._connected() as connection:
            return int(await connection.fetchval(ASLEEP))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        connection = await asyncpg.connect(self._database_url)
        try:
            yield connection
        finally:
            await connection.close()
