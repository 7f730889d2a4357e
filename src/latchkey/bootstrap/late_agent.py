"""An agent that is loaded with its first turn."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from threading import Lock
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
        self._loading = Lock()
        self._agent: ClosingAgent | None = None
        self._is_closed = False

    def run(self, assignment: Assignment) -> AsyncGenerator[AgentEvent, None]:
        return self._first_run(assignment) if self._agent is None else self._agent.run(assignment)

    async def aclose(self) -> None:
        self._is_closed = True
        if self._agent is not None:
            await self._agent.aclose()

    async def _first_run(self, assignment: Assignment) -> AsyncGenerator[AgentEvent, None]:
        agent = await asyncio.to_thread(self._loaded)
        if self._is_closed:
            await agent.aclose()
            return
        async with aclosing(agent.run(assignment)) as events:
            async for event in events:
                yield event

    def _loaded(self) -> ClosingAgent:
        with self._loading:
            if self._agent is None:
                self._agent = self._load()
            return self._agent
