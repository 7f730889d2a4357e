"""To-do tasks over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from latchkey.application import tasks
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.errors import IdempotencyMismatch
from latchkey.domain.page import DEFAULT_LIMIT, Page
from latchkey.domain.task import NewTask, Task, TaskChanges, TaskId, TaskStatus
from latchkey.interfaces.http.requests import (
    REPLAYED,
    ApiRequest,
    CursorQuery,
    IdempotencyKey,
    JsonBody,
    LimitQuery,
    PatchBody,
)
from latchkey.interfaces.http.responses import ETAG, LOCATION, IfMatch, respond_once, version_of, versioned

StatusQuery = Annotated[TaskStatus | None, QueryParameter(description="Only tasks with this status.")]


class TaskController(Controller):
    path = "/tasks"
    tags = ("tasks",)

    @post(response_headers=[ETAG, LOCATION, REPLAYED], failures=[IdempotencyMismatch])
    async def add_task(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        data: JsonBody[NewTask],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Task]:
        """Add a to-do task."""

        def respond(task: Task) -> Response[Task]:
            return versioned(task, 201, location=request.location_of("tasks", task.id))

        return await respond_once(request, dispatcher, idempotency_key, respond, tasks.add_task, data)

    @get()
    async def list_tasks(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        status: StatusQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Task]:
        """List to-do tasks, newest first."""
        return await dispatcher.call(request.user, tasks.list_tasks, status, limit, cursor)

    @get("/{task_id:uuid}", response_headers=[ETAG])
    async def get_task(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], task_id: FromPath[UUID]
    ) -> Response[Task]:
        """Get a to-do task."""
        return versioned(await dispatcher.call(request.user, tasks.get_task, TaskId(task_id)))

    @patch("/{task_id:uuid}", response_headers=[ETAG])
    async def update_task(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        task_id: FromPath[UUID],
        data: PatchBody[TaskChanges],
        if_match: IfMatch = None,
    ) -> Response[Task]:
        """Update a to-do task.

        Fields that are left out stay unchanged; null clears a description or a due time. An update without any
        effect keeps the version.
        """
        version = version_of(if_match)
        return versioned(await dispatcher.call(request.user, tasks.update_task, TaskId(task_id), data, version))

    @delete("/{task_id:uuid}", essential=True)
    async def delete_task(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        task_id: FromPath[UUID],
        if_match: IfMatch = None,
    ) -> None:
        """Delete a to-do task permanently."""
        await dispatcher.call(request.user, tasks.delete_task, TaskId(task_id), version=version_of(if_match))

    @post(
        "/{task_id:uuid}/complete",
        status_code=200,
        response_headers=[ETAG],
        example={"status": "completed", "version": 2, "completed_at": "2026-12-02T08:30:00Z"},
    )
    async def complete_task(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        task_id: FromPath[UUID],
        if_match: IfMatch = None,
    ) -> Response[Task]:
        """Mark a to-do task as completed. Completing a completed task changes nothing."""
        version = version_of(if_match)
        return versioned(await dispatcher.call(request.user, tasks.complete_task, TaskId(task_id), version=version))
