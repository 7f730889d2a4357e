"""Tasks in SQL."""

from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Select, bindparam, delete, func, select, update

from latchkey.domain.errors import NotFound
from latchkey.domain.page import PAGE_BYTES, TURN_PAGE_BYTES, Page, Window
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.infrastructure.database.schema import tasks
from latchkey.infrastructure.database.sql.session import (
    Session,
    columns_of,
    insert_for_user,
    octet_length,
    offsets,
    owned_by_user,
)

_SELECT = select(*columns_of(tasks, Task)).where(owned_by_user(tasks))
_HAS_ID = tasks.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True)
_NEWEST = _SELECT.order_by(tasks.c.id.desc()).limit(bindparam("limit"))
_NEWEST_BEFORE = _NEWEST.where(tasks.c.id < bindparam("before"))
_OF_STATUS = tasks.c.status == bindparam("status")
_PAGES = {
    (False, False): _NEWEST,
    (False, True): _NEWEST_BEFORE,
    (True, False): _NEWEST.where(_OF_STATUS),
    (True, True): _NEWEST_BEFORE.where(_OF_STATUS),
}
_MAX_TASK_BYTES = 41_000
"""A title of 200 and a description of 10,000 characters, of four bytes each, and the other columns."""
_MAX_PLAIN_LIMIT = PAGE_BYTES // _MAX_TASK_BYTES


def _bounded(page: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Return the query of the same page without the tasks that begin after `bytes`.

    Its last column is the number of tasks without that bound.
    """
    size = octet_length(tasks.c.title) + func.coalesce(octet_length(tasks.c.description), 0)
    candidates = page.with_only_columns(tasks.c.id, size.label("size")).subquery()
    sized = offsets(candidates, "id", newest_first=True)
    return (
        select(*columns_of(tasks, Task), sized.c.count)
        .select_from(sized.join(tasks, tasks.c.id == sized.c.of_key))
        .where(owned_by_user(tasks), sized.c.before < bindparam("bytes"))
        .order_by(tasks.c.id.desc())
    )


_BOUNDED_PAGES = {filters: _bounded(page) for filters, page in _PAGES.items()}
_INSERT = insert_for_user(tasks)
_UPDATE = update(tasks).where(owned_by_user(tasks), _HAS_ID)
_DELETE = delete(tasks).where(owned_by_user(tasks), _HAS_ID)


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="tasks"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    id: TaskId


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
        last = window.decode_cursor(_Cursor)
        filters = {"status": status, "before": last and last.id}
        key = status is not None, last is not None
        used = {name: value for name, value in filters.items() if value is not None}
        has_more = False
        if window.limit <= _MAX_PLAIN_LIMIT:
            rows = await self._session.fetch(_PAGES[key], limit=window.limit + 1, **used)
        else:
            sized = await self._session.fetch(_BOUNDED_PAGES[key], limit=window.limit + 1, bytes=PAGE_BYTES, **used)
            has_more = bool(sized) and len(sized) < sized[0][-1]
            rows = [row[:-1] for row in sized]
        items = [Task(*row) for row in rows]
        max_bytes = TURN_PAGE_BYTES if self._session.scope.turn_id else None
        return window.to_page(items, key=lambda task: _Cursor(task.id), has_more=has_more, max_bytes=max_bytes)

    async def update(self, task: Task) -> None:
        if not await self._session.execute(_UPDATE, key=task.id, **asdict(task)):
            raise NotFound.of("task")

    async def delete(self, id: TaskId) -> None:
        if not await self._session.execute(_DELETE, key=id):
            raise NotFound.of("task")
