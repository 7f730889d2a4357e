"""To-do tasks over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.params import FromPath, QueryParameter

from latchkey.application import tasks
from latchkey.domain.page import DEFAULT_LIMIT, Page
from latchkey.domain.task import NewTask, Task, TaskChanges, TaskId, TaskStatus
from latchkey.interfaces.http.parameters import CursorQuery, LimitQuery
from latchkey.interfaces.http.requests import ApiRequest, JsonBody, PatchBody
from latchkey.interfaces.http.responses import ETAG, LOCATION, IfMatch, tagged, version_in

StatusQuery = Annotated[TaskStatus | None, QueryParameter(description="Only tasks of this status.")]


class TaskController(Controller):
    path = "/tasks"
    tags = ("tasks",)

    @post(response_headers=[ETAG, LOCATION])
    async def add_task(self, request: ApiRequest, data: JsonBody[NewTask]) -> Response[Task]:
        """Add a to-do task."""
        task = await request.call(tasks.add_task, data)
        return tagged(task, 201, location=request.location_of("tasks", task.id))

    @get()
    async def list_tasks(
        self,
        request: ApiRequest,
        status: StatusQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Task]:
        """List to-do tasks, newest first."""
        return await request.call(tasks.list_tasks, status, limit, cursor)

    @get("/{task_id:uuid}", response_headers=[ETAG])
    async def get_task(self, request: ApiRequest, task_id: FromPath[UUID]) -> Response[Task]:
        """Show a to-do task."""
        return tagged(await request.call(tasks.get_task, TaskId(task_id)))

    @patch("/{task_id:uuid}", response_headers=[ETAG])
    async def update_task(
        self, request: ApiRequest, task_id: FromPath[UUID], data: PatchBody[TaskChanges], if_match: IfMatch = None
    ) -> Response[Task]:
        """Change a to-do task.

        What is left out stays as it is; null clears a description or a due time. A change that changes nothing
        leaves the version as it is too.
        """
        return tagged(await request.call(tasks.update_task, TaskId(task_id), data, version_in(if_match)))

    @delete("/{task_id:uuid}")
    async def delete_task(self, request: ApiRequest, task_id: FromPath[UUID], if_match: IfMatch = None) -> None:
        """Delete a to-do task for good."""
        await request.call(tasks.delete_task, TaskId(task_id), version=version_in(if_match))

    @post("/{task_id:uuid}/complete", status_code=200, response_headers=[ETAG])
    async def complete_task(
        self, request: ApiRequest, task_id: FromPath[UUID], if_match: IfMatch = None
    ) -> Response[Task]:
        """Mark a to-do task as completed. Completing it twice changes nothing."""
        return tagged(await request.call(tasks.complete_task, TaskId(task_id), version=version_in(if_match)))
