"""The app of the replicas: an assistant whose tools ask the user first, in a transaction and outside one.

The service that `deliver` calls is the scripted model's server.
"""

import os

from msgspec import Struct

from latchkey import App, Assistant, Grant, ToolContext, UnitOfWork, tool
from latchkey.application.tasks import add_task
from latchkey.domain.task import NewTask, Task

WRITE = Grant("chaos:write")


class Delivery(Struct, frozen=True):
    """A delivery that the other service has accepted."""

    title: str


def asks(title: str) -> bool:
    """Whether the user is asked: not about what is free."""
    return not title.endswith("free")


@tool(WRITE, title="Request a task", approval=asks)
async def request_task(uow: UnitOfWork, title: str) -> Task:
    """Add a task if the user approves."""
    return await add_task(uow, NewTask(title))


@tool(WRITE, title="Deliver", approval=True)
async def deliver(context: ToolContext, title: str) -> Delivery:
    """Have something delivered if the user approves."""
    response = await context.http.post(f"{os.environ['OPENAI_BASE_URL']}/deliveries", json={"title": title})
    response.raise_for_status()
    return Delivery(title)


app = App(
    name="chaos",
    tools=[request_task, deliver],
    grants=[WRITE],
    assistants=[
        Assistant(
            name="default", tools=("add_task", "request_task", "deliver", "save_artifact"), approve=("save_artifact",)
        )
    ],
)
