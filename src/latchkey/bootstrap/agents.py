"""The agents that run turns: which agent the settings select, and lazy loading of its libraries."""
# ruff: noqa: PLC0415  # the libraries of an agent are imported with its first turn: see `LazyAgent`

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from msgspec import Struct

from latchkey.bootstrap.runtime import gc_paused
from latchkey.config import BUILT_IN_AGENTS, ConfigurationError, Settings
from latchkey.domain.agent import RUN_METRICS, AgentEvent, AgentRun
from latchkey.domain.concurrency import FairSlots
from latchkey.domain.credentials import Scope, TokenSecret, UserId
from latchkey.domain.ports import Agent, AgentFactory
from latchkey.infrastructure.agents.claude.cli import ClaudeCli, find_cli

Connect = Callable[[TokenSecret, Scope], AbstractAsyncContextManager[Any]]
"""Opens an in-process MCP client."""


OPENAI_API_AGENTS = ("openai", "pydantic_ai")
"""The agents that send their requests to the model server of OPENAI_BASE_URL."""

_PROCESSES_PER_CORE = 2


class AgentSelection(Struct, frozen=True):
    """The agents that the settings select by name, and the path of the Claude CLI if one is installed.

    None means that no agent is configured for these turns.
    """

    chat: str | None
    files: str | None
    claude_cli: Path | None

    @classmethod
    def of(cls, settings: Settings, registered: Collection[str] = ()) -> "AgentSelection":
        """Select among the built-in agents and those that the app registers. Imports and starts no agent.

        Raises `ConfigurationError` if a selected agent does not exist or cannot work.
        """
        cli = find_cli(Path(settings.claude_cli) if settings.claude_cli else None)
        selection = cls(settings.agent_name, settings.file_agent_name(has_claude=cli is not None), cli)
        selected = {name for name in (selection.chat, selection.files) if name}
        if faults := [*selection._unknown(registered), *selection.missing_settings(settings, selected)]:
            raise ConfigurationError(*faults)
        return selection

    def _unknown(self, registered: Collection[str]) -> Iterator[str]:
        names = [*BUILT_IN_AGENTS, *registered]
        variables = {self.files: "LATCHKEY_FILE_AGENT", self.chat: "LATCHKEY_AGENT"}  # one fault if both are the same
        for name, variable in variables.items():
            if name is not None and name not in names:
                yield f"{variable}: there is no agent `{name}`; there are {', '.join(names)}"

    def missing_settings(self, settings: Settings, selected: Collection[str]) -> list[str]:
        """Return what is missing for these agents to work."""
        faults = []
        if "claude" in selected and not settings.anthropic_api_key:
            faults.append("ANTHROPIC_API_KEY: must be set for the agent `claude`")
        if settings.claude_cli and self.claude_cli is None:
            faults.append("LATCHKEY_CLAUDE_CLI: must be the path of the Claude CLI, an executable file")
        elif "claude" in selected and self.claude_cli is None:
            faults.append(
                "LATCHKEY_CLAUDE_CLI: must be set, or install the CLI with `pip install 'latchkey-server[claude]'`"
            )
        if not (settings.openai_api_key or settings.openai_base_url):
            faults += [
                f"OPENAI_API_KEY: must be set for the agent `{name}`, or OPENAI_BASE_URL"
                for name in OPENAI_API_AGENTS
                if name in selected
            ]
        if "pydantic_ai" in selected and find_spec("pydantic_ai") is None:
            faults.append(
                "LATCHKEY_AGENT: the agent `pydantic_ai` needs Pydantic AI: install it with"
                " `pip install 'latchkey-server[pydantic-ai]'`"
            )
        return faults


def registered_agents(settings: Settings) -> Collection[str]:
    """Return the names of the app's agents. Raises `AppError`."""
    if settings.app is None:
        return ()
    with gc_paused():
        from latchkey.bootstrap.registry import Registry
    return Registry.read(settings).agents


def unused_model_server(settings: Settings) -> str | None:
    """Return a sentence if OPENAI_BASE_URL alone selects no agent: which agent is used, and what to set. Else None."""
    if not settings.openai_base_url or settings.openai_api_key or settings.agent is not None:
        return None
    used = f"the {settings.agent_name} agent is used" if settings.agent_name else "no agent is used"
    return f"OPENAI_BASE_URL alone selects no agent, so {used}: set LATCHKEY_AGENT=openai to use that model server."


class LazyAgent:
    """An agent that is imported and created with its first turn, in a thread.

    The libraries of an agent take much time and memory to import; a process without turns never loads them.
    """

    def __init__(self, name: str, load: Callable[[], Agent]) -> None:
        self.name = name
        self._load = load
        self._loading: asyncio.Task[Agent] | None = None

    @property
    def model(self) -> str | None:
        """The model of the loaded agent; None before that."""
        is_loaded = self._loading is not None and self._loading.done() and not self._loading.exception()
        return self._loading.result().model if self._loading and is_loaded else None

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """Run the turn on the loaded agent. Raises like `load` if loading fails; the next turn tries again."""
        # All waiting turns share the task, so the cancellation of one turn must not cancel it.
        started = perf_counter()
        agent = await asyncio.shield(self._loaded())
        if (metrics := RUN_METRICS.get()) is not None:
            metrics.loaded_ms = (perf_counter() - started) * 1000
        async with aclosing(agent.run(agent_run)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the agent if it has been loaded, or is being loaded."""
        if self._loading is None:
            return
        await asyncio.wait([self._loading])
        if not self._loading.exception():
            await self._loading.result().aclose()

    def _loaded(self) -> asyncio.Task[Agent]:
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        return self._loading


class Agents:
    """The agents for chat turns and for file turns; the same object if both are the same agent.

    `mcp_url` is the address of our MCP endpoint for a subprocess on this machine.
    """

    def __init__(
        self, settings: Settings, connect: Connect, mcp_url: str, factories: Mapping[str, AgentFactory] | None = None
    ) -> None:
        """Raises `ConfigurationError` for an unknown agent, and for one that cannot work."""
        self._settings = settings
        self._connect = connect
        self._mcp_url = mcp_url
        self._factories = factories or {}
        self._selection = AgentSelection.of(settings, self._factories)
        self._agents: dict[str, LazyAgent] = {}
        self.chat = self.get(self._selection.chat) if self._selection.chat else None
        self.files = self.get(self._selection.files) if self._selection.files else None
        self._claude_slots = _process_slots(settings.claude_processes)

    def get(self, name: str) -> LazyAgent:
        """Return the agent of this name. Raises `ConfigurationError` if there is none."""
        loaders: dict[str, Callable[[], Agent]] = {
            "claude": self._load_claude,
            "openai": self._load_openai,
            "pydantic_ai": self._load_pydantic_ai,
            "rehearsal": self._load_rehearsal,
            **{name: partial(factory, self._connect) for name, factory in self._factories.items()},
        }
        if name not in loaders:
            raise ConfigurationError(f"LATCHKEY_AGENT: there is no agent `{name}`; there are {', '.join(loaders)}")
        return self._agents.setdefault(name, LazyAgent(name, loaders[name]))

    def slots(self, agent: LazyAgent | None) -> FairSlots[UserId] | None:
        """Return the slots for running turns of an agent, if it starts processes. One user has at most half of them."""
        return self._claude_slots if agent is not None and agent.name == "claude" else None

    async def aclose(self) -> None:
        """Close all agents."""
        for agent in self._agents.values():
            await agent.aclose()

    def _load_rehearsal(self) -> Agent:
        with gc_paused():
            from latchkey.infrastructure.agents.scripted.agent import RehearsalAgent
        return RehearsalAgent(self._connect)

    def _load_claude(self) -> Agent:
        with gc_paused():
            from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
        settings, path = self._settings, self._selection.claude_cli
        if path is None or settings.anthropic_api_key is None:
            raise LookupError("claude")  # `AgentSelection.of` has checked both
        cli = ClaudeCli(
            path=path,
            api_key=settings.anthropic_api_key,
            model=settings.claude_model,
            base_url=settings.anthropic_base_url,
        )
        return ClaudeAgent(self._connect, cli, mcp_url=self._mcp_url)

    def _load_openai(self) -> Agent:
        with gc_paused():
            from latchkey.infrastructure.agents.openai.agent import OpenAIAgent
        return OpenAIAgent(self._connect, **self._model_server())

    def _load_pydantic_ai(self) -> Agent:
        with gc_paused():
            from latchkey.infrastructure.agents.pydantic_ai.agent import PydanticAIAgent
        return PydanticAIAgent(self._connect, **self._model_server())

    def _model_server(self) -> dict[str, Any]:
        return {
            "model": self._settings.model,
            "api_key": self._settings.openai_api_key or "none",
            "base_url": self._settings.openai_base_url,
            "api": self._settings.openai_api,
        }


def _process_slots(processes: int | None) -> FairSlots[UserId]:
    total = processes or _PROCESSES_PER_CORE * (os.cpu_count() or 1)
    return FairSlots(total, (total + 1) // 2)
