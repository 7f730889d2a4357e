"""Use cases on to-do tasks. The docstrings are published as the descriptions of the MCP tools."""

from typing import Annotated

from msgspec import Meta

from latchkey.application.access import needs
from latchkey.domain.credentials import Grant
from latchkey.domain.page import DEFAULT_LIMIT, Cursor, Limit, Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.task import NewTask, Task, TaskChanges, TaskId, TaskStatus, Version, in_utc


@needs(Grant.TASKS_WRITE, stores=True)
async def add_task(work: UnitOfWork, new: NewTask) -> Task:
    """Add a to-do task to the person's list."""
    task = Task(
        id=TaskId(work.new_id()),
        title=new.title,
        description=new.description,
        due_at=in_utc(new.due_at),
        status="pending",
        version=1,
        conversation_id=work.scope.conversation_id,
        created_at=work.now,
        updated_at=work.now,
        completed_at=None,
    )
    await work.tasks.add(task)
    return task


@needs(Grant.TASKS_READ)
async def list_tasks(
    work: UnitOfWork,
    status: TaskStatus | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor | None = None,
) -> Page[Task]:
    """List the person's to-do tasks, newest first, all of them or those of one status."""
    return await work.tasks.page(status, Window(limit, cursor))


@needs(Grant.TASKS_READ)
async def get_task(work: UnitOfWork, task_id: TaskId) -> Task:
    """Show one to-do task."""
    return await work.tasks.get(task_id)


@needs(Grant.TASKS_WRITE)
async def complete_task(work: UnitOfWork, task_id: TaskId, *, version: Version | None = None) -> Task:
    """Mark a to-do task as completed. Completing it twice changes nothing."""
    return await _change(work, task_id, TaskChanges(status="completed"), version)


@needs(Grant.TASKS_WRITE, stores=True)
async def update_task(
    work: UnitOfWork,
    task_id: TaskId,
    changes: TaskChanges,
    version: Annotated[Version | None, Meta(description="Change it only if this is still its version.")] = None,
) -> Task:
    """Change a to-do task. What is left out stays as it is; null clears a description or a due time."""
    return await _change(work, task_id, changes, version)


@needs(Grant.TASKS_WRITE)
async def delete_task(work: UnitOfWork, task_id: TaskId, *, version: Version | None = None) -> Task:
    """Delete a to-do task for good, and answer with the task that was."""
    task = (await work.tasks.get(task_id, for_update=True)).at_version(version)
    await work.tasks.remove(task_id)
    return task


async def _change(work: UnitOfWork, task_id: TaskId, changes: TaskChanges, version: int | None) -> Task:
    task = (await work.tasks.get(task_id, for_update=True)).at_version(version)
    changed = task.changed(changes, work.now)
    if changed is not task:
        await work.tasks.replace(changed)
    return changed
