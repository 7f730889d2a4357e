"""An agent that is loaded with its first turn."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from latchkey.domain.agent import AgentEvent, Assignment
from latchkey.domain.ports import Agent


class ClosingAgent(Agent, Protocol):
    async def aclose(self) -> None: ...


class LateAgent:
    """Itself it needs nothing. What an agent imports takes 0.5 s of CPU and 36 MB.

    A process without turns does without; with the first, it is imported in a thread, and all others are served
    meanwhile.
    """

    def __init__(self, name: str, load: Callable[[], ClosingAgent]) -> None:
        self.name = name
        self._load = load
        self._loading: asyncio.Task[ClosingAgent] | None = None

    async def run(self, assignment: Assignment) -> AsyncGenerator[AgentEvent, None]:
        # Shared by all turns that wait for it; one that is cancelled meanwhile takes it from nobody.
        agent = await asyncio.shield(self._loaded())
        async with aclosing(agent.run(assignment)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        if self._loading is None:
            return
        await asyncio.wait([self._loading])
        if not self._loading.exception():
            await self._loading.result().aclose()

    def _loaded(self) -> asyncio.Task[ClosingAgent]:
        """What went wrong is tried again with the next turn."""
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        return self._loading
