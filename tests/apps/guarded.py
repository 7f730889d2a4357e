"""An app whose tools ask the user before they run."""

import os
import signal
from math import log10
from pathlib import Path

from msgspec import Struct

from latchkey import App, Grant, ToolContext, UnitOfWork, tool
from latchkey.application.tasks import add_task
from latchkey.domain.task import NewTask, Task

READ, WRITE = Grant("guarded:read"), Grant("guarded:write")

SMALL_AMOUNT = 100

orders: list[str] = []
"""The ids of the calls of `order` that ran in this process."""


def kill_once() -> None:
    """Kill this process when the environment names a file that does not exist; the file says that it has happened."""
    path = os.environ.get("GUARDED_KILL")
    if path and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Order(Struct, frozen=True):
    """An order."""

    sku: str


class Balance(Struct, frozen=True):
    """An amount of money."""

    amount: int


@tool(WRITE, title="Publish a text", approval=True)
async def publish(uow: UnitOfWork, text: str, notify: bool = True) -> Task:  # noqa: FBT001, FBT002 - an argument
    """Publish a text: adds a task with it."""
    task = await add_task(uow, NewTask(text, "notify" if notify else None))
    kill_once()
    return task


def is_large(amount: int) -> bool:
    """Whether the user is asked. It has a bug: it raises for amounts that are not positive."""
    return log10(amount) > log10(SMALL_AMOUNT)


@tool(WRITE, title="Pay", approval=is_large)
async def pay(uow: UnitOfWork, amount: int) -> Task:
    """Pay an amount: adds a task with it."""
    return await add_task(uow, NewTask(f"Paid {amount}"))


@tool(READ, title="Show the balance", approval=True)
async def show_balance(_: UnitOfWork) -> Balance:
    """Show the balance."""
    return Balance(SMALL_AMOUNT)


@tool(WRITE, title="Order", approval=True)
async def order(context: ToolContext, sku: str) -> Order:
    """Order something elsewhere."""
    orders.append(context.call_id)
    kill_once()
    return Order(sku)


app = App(name="guarded", tools=[publish, pay, show_balance, order], grants=[READ, WRITE])
