"""The agents that the settings ask for, each made once."""
# ruff: noqa: PLC0415  # which libraries are needed is known here, and each agent brings many: see `LateAgent`

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import mcp

from latchkey.bootstrap.interpreter import importing
from latchkey.bootstrap.late_agent import ClosingAgent, LateAgent
from latchkey.bootstrap.staffing import Staffing
from latchkey.config import AgentName, Settings
from latchkey.domain.scope import Scope, TokenSecret
from latchkey.infrastructure.agents.claude_cli import ClaudeCli


class Connect(Protocol):
    def __call__(self, secret: TokenSecret, scope: Scope) -> AbstractAsyncContextManager[mcp.Client]: ...


class Agents:
    """`mcp_url` is where a process on this machine reaches our MCP endpoint."""

    def __init__(self, settings: Settings, connect: Connect, mcp_url: str) -> None:
        """Raises `ConfigurationError` for an agent that could not work."""
        self._settings = settings
        self._connect = connect
        self._mcp_url = mcp_url
        self._staffing = Staffing.of(settings)
        self._made: dict[AgentName, LateAgent] = {}
        self.chat = self._named(self._staffing.chat)
        self.files = self._named(self._staffing.files)

    async def aclose(self) -> None:
        for agent in self._made.values():
            await agent.aclose()

    def _named(self, name: AgentName | None) -> LateAgent | None:
        if name is None:
            return None
        return self._made.setdefault(name, LateAgent(name, partial(self._make, name)))

    def _make(self, name: AgentName) -> ClosingAgent:
        if name == "rehearsal":
            with importing():
                from latchkey.infrastructure.agents.rehearsal import RehearsalAgent
            return RehearsalAgent(self._connect)
        if name == "claude":
            with importing():
                from latchkey.infrastructure.agents.claude import ClaudeAgent
            at_once = self._settings.claude_processes
            return ClaudeAgent(self._connect, self._cli(), mcp_url=self._mcp_url, at_once=at_once)
        with importing():
            from latchkey.infrastructure.agents.openai import OpenAIAgent
        return OpenAIAgent(
            self._connect,
            model=self._settings.model,
            api_key=self._settings.openai_api_key or "none",
            base_url=self._settings.openai_base_url,
            api=self._settings.openai_api,
        )

    def _cli(self) -> ClaudeCli:
        settings, path = self._settings, self._staffing.cli
        if path is None or settings.anthropic_api_key is None:
            raise LookupError("claude")  # the staffing has seen to both
        return ClaudeCli(
            path=path,
            api_key=settings.anthropic_api_key,
            model=settings.claude_model,
            base_url=settings.anthropic_base_url,
        )
