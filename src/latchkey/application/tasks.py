"""Use cases on to-do tasks. The docstrings of those that are MCP tools are the tools' descriptions."""

from typing import Annotated

from msgspec import Meta

from latchkey.application.access import requires, tool
from latchkey.domain.credentials import TASKS_READ, TASKS_WRITE
from latchkey.domain.page import DEFAULT_LIMIT, Cursor, Limit, Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.task import NewTask, Task, TaskChanges, TaskId, TaskStatus, Version, in_utc


@tool(TASKS_WRITE, title="Add a to-do task", destructive=False)
async def add_task(uow: UnitOfWork, new: NewTask) -> Task:
    """Add a to-do task to the user's list."""
    task = Task(
        id=TaskId(uow.new_id()),
        title=new.title,
        description=new.description,
        due_at=in_utc(new.due_at),
        status="pending",
        version=1,
        conversation_id=uow.scope.conversation_id,
        created_at=uow.now,
        updated_at=uow.now,
        completed_at=None,
    )
    await uow.tasks.add(task)
    return task


@tool(TASKS_READ, title="List to-do tasks")
async def list_tasks(
    uow: UnitOfWork,
    status: TaskStatus | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor | None = None,
) -> Page[Task]:
    """List the user's to-do tasks, newest first: all of them, or those with one status."""
    return await uow.tasks.page(status, Window(limit, cursor))


@requires(TASKS_READ)
async def get_task(uow: UnitOfWork, task_id: TaskId) -> Task:
    """Show one to-do task."""
    return await uow.tasks.get(task_id)


@tool(TASKS_WRITE, title="Complete a to-do task", destructive=False, idempotent=True, stores=False)
async def complete_task(uow: UnitOfWork, task_id: TaskId, *, version: Version | None = None) -> Task:
    """Mark a to-do task as completed. Completing it twice changes nothing."""
    return await _change(uow, task_id, TaskChanges(status="completed"), version)


@tool(TASKS_WRITE, title="Change a to-do task", idempotent=True)
async def update_task(
    uow: UnitOfWork,
    task_id: TaskId,
    changes: TaskChanges,
    version: Annotated[Version | None, Meta(description="Change the task only if this is its current version.")] = None,
) -> Task:
    """Change a to-do task. A field that is left out stays unchanged; null clears a description or a due time."""
    return await _change(uow, task_id, changes, version)


@tool(TASKS_WRITE, title="Delete a to-do task", idempotent=True, stores=False)
async def delete_task(uow: UnitOfWork, task_id: TaskId, *, version: Version | None = None) -> Task:
    """Delete a to-do task permanently, and return the deleted task."""
    task = await uow.tasks.get(task_id, for_update=True)
    task.check_version(version)
    await uow.tasks.delete(task_id)
    return task


async def _change(uow: UnitOfWork, task_id: TaskId, changes: TaskChanges, version: int | None) -> Task:
    task = await uow.tasks.get(task_id, for_update=True)
    task.check_version(version)
    changed = task.with_changes(changes, uow.now)
    if changed is not task:
        await uow.tasks.update(changed)
    return changed
