"""To-do tasks over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.params import HeaderParameter, QueryParameter

from latchkey.application import tasks
from latchkey.domain.page import DEFAULT_LIMIT, Page
from latchkey.domain.task import NewTask, Task, TaskChanges, TaskId, TaskStatus
from latchkey.interfaces.http.entity_tag import tagged, version_in
from latchkey.interfaces.http.paging import CursorQuery, LimitQuery
from latchkey.interfaces.http.request import ApiRequest

StatusQuery = Annotated[TaskStatus | None, QueryParameter(description="Only tasks of this status.")]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="Only if this is still its entity tag.")]


class TaskController(Controller):
    path = "/tasks"
    tags = ["tasks"]

    @post()
    async def add(self, request: ApiRequest, data: NewTask) -> Response[Task]:
        task = await request.call(tasks.add_task, data)
        return tagged(task, 201, location=f"/api/{request.user.user_id}/tasks/{task.id}")

    @get()
    async def list(
        self,
        request: ApiRequest,
        status: StatusQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Task]:
        return await request.call(tasks.list_tasks, status, limit, cursor)

    @get("/{task_id:uuid}")
    async def show(self, request: ApiRequest, task_id: UUID) -> Response[Task]:
        return tagged(await request.call(tasks.get_task, TaskId(task_id)))

    @patch("/{task_id:uuid}")
    async def change(
        self, request: ApiRequest, task_id: UUID, data: TaskChanges, if_match: IfMatch = None
    ) -> Response[Task]:
        return tagged(await request.call(tasks.update_task, TaskId(task_id), data, version_in(if_match)))

    @delete("/{task_id:uuid}")
    async def remove(self, request: ApiRequest, task_id: UUID, if_match: IfMatch = None) -> None:
        await request.call(tasks.delete_task, TaskId(task_id), version=version_in(if_match))

    @post("/{task_id:uuid}/complete", status_code=200)
    async def complete(self, request: ApiRequest, task_id: UUID, if_match: IfMatch = None) -> Response[Task]:
        return tagged(await request.call(tasks.complete_task, TaskId(task_id), version=version_in(if_match)))
