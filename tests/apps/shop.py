"""An app of a team whose tools call another service. It imports public names only."""

import os

from msgspec import Struct

from latchkey import App, Assistant, Conflict, Grant, ToolContext, UnitOfWork, tool

READ, WRITE = Grant("shop:read"), Grant("shop:write")


class Order(Struct, frozen=True):
    """An order that the shop has accepted."""

    number: str
    sku: str


class Stock(Struct, frozen=True):
    """How many items the shop has."""

    sku: str
    count: int


@tool(WRITE, title="Order an item", timeout_s=60)
async def order_item(context: ToolContext, sku: str) -> Order:
    """Order an item from the shop."""
    response = await context.http.post(
        f"{os.environ['SHOP_URL']}/orders", json={"sku": sku}, headers={"idempotency-key": context.call_id}
    )
    if response.status_code == 409:
        raise Conflict(f"{sku} is sold out.")
    response.raise_for_status()
    return Order(response.json()["number"], sku)


@tool(READ, title="Show the stock of an item")
async def check_stock(context: ToolContext, sku: str) -> Stock:
    """Show how many items of a kind the shop has."""
    response = await context.http.get(f"{os.environ['SHOP_URL']}/stock/{sku}")
    response.raise_for_status()
    return Stock(sku, response.json()["count"])


@tool(WRITE, title="Count items")
async def count_items(uow: UnitOfWork, fault: str) -> Stock:
    """Add a task and return a result with that fault."""
    from latchkey.application.tasks import add_task  # noqa: PLC0415 - a built-in use case, to have an effect
    from latchkey.domain.task import NewTask  # noqa: PLC0415

    await add_task(uow, NewTask("Count"))
    return _stock(fault)


@tool(WRITE, title="Count items elsewhere")
async def count_elsewhere(context: ToolContext, fault: str) -> Stock:
    """Return a result with that fault."""
    return _stock(fault)


class DetailedStock(Stock, frozen=True):
    """More than the tools declare to return."""

    supplier: str = "ACME"


def _stock(fault: str) -> Stock:
    results = {
        "none": Stock("bell", 1),
        "wrong type": Stock("bell", "many"),  # type: ignore[arg-type]
        "no struct": {"sku": "bell", "count": 1},
        "unknown field": DetailedStock("bell", 1),
        "too large": Stock("b" * 2_000_000, 1),
    }
    if fault not in results:
        raise LookupError(fault)
    return results[fault]  # type: ignore[return-value]


app = App(
    name="shop",
    tools=[order_item, check_stock, count_items, count_elsewhere],
    grants=[READ, WRITE],
    assistants=[Assistant(name="default", tools=("order_item", "check_stock"))],
)
