"""Two processes of the service that call tools outside a transaction, and tools that a test controls, for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from latchkey.application.access import requires
from latchkey.application.context_tokens import mint_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor, ExternalTool
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.domain.credentials import TASKS_READ, TASKS_WRITE, Credential, NewContextToken, Owner
from latchkey.domain.errors import Unavailable
from latchkey.domain.ports import LogEntry, Transaction, TransactionMode, UnitsOfWork
from latchkey.domain.quota import Quota
from latchkey.domain.tool_call import ToolInvocation, ToolOutcome
from latchkey.infrastructure.tool_context import HttpToolContexts, ToolContext
from tests.builders import TASK_GRANTS
from tests.contract.database.event_bus_pair import Process, run_process

TIMEOUT_S = 600.0
"""Longer than a test: it fails first."""


class Order(Struct):
    """What the tool `order` returns."""

    sku: str
    count: int


class OrderTool:
    """The tool `order`, whose runs wait until the test releases them, and `stock`, which changes nothing.

    `respond` is what a released run does; by default it returns the order.
    """

    def __init__(self) -> None:
        self.contexts: list[ToolContext] = []
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.was_cancelled = False
        self.respond: Callable[[str], Awaitable[object]] | None = None

        @requires(TASKS_WRITE)
        async def order(context: ToolContext, sku: str) -> object:
            self.contexts.append(context)
            self.started.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
            return await self.respond(sku) if self.respond else Order(sku, len(self.contexts))

        @requires(TASKS_READ)
        async def stock(context: ToolContext, sku: str) -> object:
            return await order(context, sku)

        self.order, self.stock = order, stock

    @property
    def runs(self) -> int:
        """How often the tool has run."""
        return len(self.contexts)


@dataclass
class ObservedUnits:
    """Counts the units of work that are open, and can delay or refuse further ones."""

    units: UnitsOfWork
    open_now: int = 0
    failures: int = 0
    may_open: asyncio.Event = field(default_factory=asyncio.Event)
    is_blocked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_open.set()

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        return self._open(credential, mode)

    @asynccontextmanager
    async def _open(self, credential: Credential, mode: TransactionMode) -> AsyncIterator[Transaction]:
        if not self.may_open.is_set():
            self.is_blocked.set()
            await self.may_open.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("The database is unavailable.")
        async with self.units.open(credential, mode) as uow:
            self.open_now += 1
            try:
                yield uow
            finally:
                self.open_now -= 1


class Replica:
    """One process: its dispatcher and its executors, with what it has logged."""

    def __init__(self, process: Process, max_calls: int = 100, quota: Quota | None = None) -> None:
        self.logged: list[LogEntry] = []
        self.process = process
        self.units = ObservedUnits(process.units)
        self.dispatcher = Dispatcher(self.units, self.logged.append, quota or Quota())
        self.transactional = ToolCallExecutor(self.dispatcher, max_calls)
        self.external = ExternalCallExecutor(self.dispatcher, self.transactional, process.event_bus, HttpToolContexts())

    async def call(
        self,
        credential: Credential,
        function: Callable[..., Awaitable[object]],
        sku: str = "bell",
        *,
        call_id: str | None = "call-1",
        timeout_s: float = TIMEOUT_S,
    ) -> ToolOutcome:
        invocation = ToolInvocation(function.__name__, msgspec.json.encode({"sku": sku}), call_id)
        return await self.external.execute(credential, invocation, ExternalTool(function, timeout_s), [sku])

    async def token(self, owner: Owner) -> Any:
        """A context token outside a turn."""
        return await self.dispatcher.call(owner, mint_context_token, NewContextToken(TASK_GRANTS))


@asynccontextmanager
async def run_replicas(url: str, count: int = 2) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        yield [Replica(await stack.enter_async_context(run_process(url))) for _ in range(count)]
