"""To-do tasks in SQL."""

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import bindparam, delete, select, update

from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user

_ALL = select(*columns_of(tasks, Task)).where(owned_by_user(tasks))
_KEY = tasks.c.id == bindparam("key")
_ONE = _ALL.where(_KEY)
_ONE_FOR_UPDATE = _ONE.with_for_update(key_share=True)
_NEWEST = _ALL.order_by(tasks.c.id.desc()).limit(bindparam("limit"))
_OLDER = _NEWEST.where(tasks.c.id < bindparam("before"))
_OF_STATUS = tasks.c.status == bindparam("status")
_PAGES = {
    (False, False): _NEWEST,
    (False, True): _OLDER,
    (True, False): _NEWEST.where(_OF_STATUS),
    (True, True): _OLDER.where(_OF_STATUS),
}
_ADD = insert_for_user(tasks)
_REPLACE = update(tasks).where(owned_by_user(tasks), _KEY)
_REMOVE = delete(tasks).where(owned_by_user(tasks), _KEY)


class _Last(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="tasks"):
    """The last item of a page, as its cursor names it; the tag tells it from the cursors of other listings."""

    id: TaskId


class SqlTasks:
    """Newest first: the ids are UUIDv7, so their order is the order of making."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, task: Task) -> None:
        await self._session.defer(_ADD, **asdict(task))

    async def get(self, id: TaskId, *, for_update: bool = False) -> Task:
        row = await self._session.fetch_row(_ONE_FOR_UPDATE if for_update else _ONE, key=id)
        if row is None:
            raise NotFound.of("task")
        return Task(*row)

    async def page(self, status: TaskStatus | None, window: Window) -> Page[Task]:
        last = window.decode_cursor(_Last)
        bounds = {"status": status, "before": last and last.id}
        statement = _PAGES[status is not None, last is not None]
        given = {name: value for name, value in bounds.items() if value is not None}
        rows = await self._session.fetch(statement, limit=window.limit + 1, **given)
        return window.to_page([Task(*row) for row in rows], key=lambda task: _Last(task.id))

    async def update(self, task: Task) -> None:
        if not await self._session.execute(_REPLACE, key=task.id, **asdict(task)):
            raise NotFound.of("task")

    async def delete(self, id: TaskId) -> None:
        if not await self._session.execute(_REMOVE, key=id):
            raise NotFound.of("task")
