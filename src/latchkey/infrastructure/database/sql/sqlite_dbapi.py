"""What SQLAlchemy's ORM needs of a SQLite connection: a DBAPI connection that runs on the unit of work's thread."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy.util import await_


class CursorResult(Struct, frozen=True):
    """What one call of a cursor has returned."""

    rows: list[Any]
    description: Any
    rowcount: int
    lastrowid: int | None


Run = Callable[[str, Any, bool], Awaitable[CursorResult]]
"""Runs SQL with its parameters, or once for each item of a list of parameters."""


class SQLiteDbapiConnection:
    """Has no transaction of its own: the unit of work begins and ends it."""

    is_valid = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def cursor(self, *_args: Any, **_options: Any) -> "SQLiteDbapiCursor":
        return SQLiteDbapiCursor(self._run)

    def commit(self) -> None:
        """Do nothing: the unit of work commits."""

    def rollback(self) -> None:
        """Do nothing: the unit of work rolls back."""


class SQLiteDbapiCursor:
    """Fetches all rows at once: a hop to the thread costs more than most rows."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    def execute(self, sql: str, parameters: Any = ()) -> None:
        self._keep(await_(self._run(sql, parameters, False)))  # noqa: FBT003 # of `Run`

    def executemany(self, sql: str, parameters: Sequence[Any]) -> None:
        self._keep(await_(self._run(sql, parameters, True)))  # noqa: FBT003 # of `Run`

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = list(self._rows), deque()
        return rows

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """SQLAlchemy's asyncio results call this of every cursor. There is nothing to close."""

    def _keep(self, result: CursorResult) -> None:
        self._rows = deque(result.rows)
        self.description, self.rowcount, self.lastrowid = result.description, result.rowcount, result.lastrowid
