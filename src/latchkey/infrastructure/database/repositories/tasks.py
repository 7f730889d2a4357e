"""Tasks in SQL."""

from msgspec.structs import asdict
from sqlalchemy import bindparam, delete, select, update

from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql.listing import Listing
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user

_SELECT = select(*columns_of(tasks, Task)).where(owned_by_user(tasks))
_HAS_ID = tasks.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True)
_MAX_TASK_BYTES = 41_000
"""A title of 200 and a description of 10,000 characters, of four bytes each, and the other columns."""
_LISTING = Listing(tasks, Task, max_bytes=_MAX_TASK_BYTES)
_INSERT = insert_for_user(tasks)
_UPDATE = update(tasks).where(owned_by_user(tasks), _HAS_ID)
_DELETE = delete(tasks).where(owned_by_user(tasks), _HAS_ID)


class SqlTasks:
    """Tasks, newest first: the ids are UUIDv7, so they sort by creation time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, task: Task) -> None:
        await self._session.defer(_INSERT, **asdict(task))

    async def get(self, id: TaskId, *, for_update: bool = False) -> Task:
        row = await self._session.fetch_row(_BY_ID_FOR_UPDATE if for_update else _BY_ID, key=id)
        if row is None:
            raise NotFound.of("task")
        return Task(*row)

    async def page(self, status: TaskStatus | None, window: Window) -> Page[Task]:
        return await _LISTING.page(self._session, window, {} if status is None else {"status": status})

    async def update(self, task: Task) -> None:
        if not await self._session.execute(_UPDATE, key=task.id, **asdict(task)):
            raise NotFound.of("task")

    async def delete(self, id: TaskId) -> None:
        if not await self._session.execute(_DELETE, key=id):
            raise NotFound.of("task")
