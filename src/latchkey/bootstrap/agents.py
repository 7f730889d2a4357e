"""An agent that is loaded with its first turn."""
# ruff: noqa: PLC0415  # which libraries are needed is known here, and each agent brings many: see `LazyAgent`

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Protocol

import mcp

from latchkey.bootstrap.agent_selection import AgentSelection
from latchkey.bootstrap.runtime import importing
from latchkey.config import AgentName, Settings
from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.ports import Agent
from latchkey.infrastructure.agents.claude.cli import ClaudeCli


class LazyAgent:
    """Itself it needs nothing. What an agent imports takes 0.5 s of CPU and 36 MB.

    A process without turns does without; with the first, it is imported in a thread, and all others are served
    meanwhile.
    """

    def __init__(self, name: str, load: Callable[[], Agent]) -> None:
        self.name = name
        self._load = load
        self._loading: asyncio.Task[Agent] | None = None

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        # Shared by all turns that wait for it; one that is cancelled meanwhile takes it from nobody.
        agent = await asyncio.shield(self._loaded())
        async with aclosing(agent.run(agent_run)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        if self._loading is None:
            return
        await asyncio.wait([self._loading])
        if not self._loading.exception():
            await self._loading.result().aclose()

    def _loaded(self) -> asyncio.Task[Agent]:
        """What went wrong is tried again with the next turn."""
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        return self._loading


class Connect(Protocol):
    def __call__(self, secret: TokenSecret, scope: Scope) -> AbstractAsyncContextManager[mcp.Client]: ...


class Agents:
    """`mcp_url` is where a process on this machine reaches our MCP endpoint."""

    def __init__(self, settings: Settings, connect: Connect, mcp_url: str) -> None:
        """Raises `ConfigurationError` for an agent that could not work."""
        self._settings = settings
        self._connect = connect
        self._mcp_url = mcp_url
        self._selection = AgentSelection.of(settings)
        self._made: dict[AgentName, LazyAgent] = {}
        self.chat = self._named(self._selection.chat)
        self.files = self._named(self._selection.files)

    async def aclose(self) -> None:
        for agent in self._made.values():
            await agent.aclose()

    def _named(self, name: AgentName | None) -> LazyAgent | None:
        if name is None:
            return None
        return self._made.setdefault(name, LazyAgent(name, partial(self._make, name)))

    def _make(self, name: AgentName) -> Agent:
        if name == "rehearsal":
            with importing():
                from latchkey.infrastructure.agents.scripted.agent import RehearsalAgent
            return RehearsalAgent(self._connect)
        if name == "claude":
            with importing():
                from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
            at_once = self._settings.claude_processes
            return ClaudeAgent(self._connect, self._cli(), mcp_url=self._mcp_url, at_once=at_once)
        with importing():
            from latchkey.infrastructure.agents.openai.agent import OpenAIAgent
        return OpenAIAgent(
            self._connect,
            model=self._settings.model,
            api_key=self._settings.openai_api_key or "none",
            base_url=self._settings.openai_base_url,
            api=self._settings.openai_api,
        )

    def _cli(self) -> ClaudeCli:
        settings, path = self._settings, self._selection.cli
        if path is None or settings.anthropic_api_key is None:
            raise LookupError("claude")  # the staffing has seen to both
        return ClaudeCli(
            path=path,
            api_key=settings.anthropic_api_key,
            model=settings.claude_model,
            base_url=settings.anthropic_base_url,
        )
