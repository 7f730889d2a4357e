"""The agents that the settings ask for, each made once."""

from contextlib import AbstractAsyncContextManager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import mcp

from latchkey.config import ConfigurationError, Settings
from latchkey.domain.ports import Agent
from latchkey.domain.scope import TokenSecret
from latchkey.infrastructure.agents.claude import ClaudeAgent
from latchkey.infrastructure.agents.claude_cli import ClaudeCli, find_cli
from latchkey.infrastructure.agents.openai import OpenAIAgent
from latchkey.infrastructure.agents.rehearsal import RehearsalAgent


class Connect(Protocol):
    def __call__(self, secret: TokenSecret) -> AbstractAsyncContextManager[mcp.Client]: ...


class Agents:
    """`mcp_url` is where a process on this machine reaches our MCP endpoint."""

    def __init__(self, settings: Settings, connect: Connect, mcp_url: str) -> None:
        """Raises `ConfigurationError` for an agent that cannot be made."""
        self._settings = settings
        self._connect = connect
        self._mcp_url = mcp_url
        self._made: dict[str, OpenAIAgent | ClaudeAgent] = {}
        self.chat = self._named(settings.agent_name)
        self.files = self._named(settings.file_agent_name(has_claude=self._cli is not None))

    async def aclose(self) -> None:
        for agent in self._made.values():
            await agent.aclose()

    @cached_property
    def _cli(self) -> Path | None:
        configured = self._settings.claude_cli
        found = find_cli(Path(configured) if configured else None)
        if configured and found is None:
            raise ConfigurationError("LATCHKEY_CLAUDE_CLI: must be the path of the Claude CLI, a program")
        return found

    def _named(self, name: str | None) -> Agent | None:
        if name is None:
            return None
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> OpenAIAgent | ClaudeAgent:
        settings = self._settings
        if name == "rehearsal":
            return RehearsalAgent(self._connect)
        if name == "claude":
            return self._make_claude()
        return OpenAIAgent(
            self._connect,
            model=settings.model,
            api_key=settings.openai_api_key or "none",
            base_url=settings.openai_base_url,
            api=settings.openai_api,
        )

    def _make_claude(self) -> ClaudeAgent:
        settings = self._settings
        if self._cli is None:
            raise ConfigurationError("LATCHKEY_CLAUDE_CLI: must be set, or `pip install latchkey[claude]` brings one")
        if not settings.anthropic_api_key:
            raise ConfigurationError("ANTHROPIC_API_KEY: must be set for the agent `claude`")
        cli = ClaudeCli(
            path=self._cli,
            api_key=settings.anthropic_api_key,
            model=settings.claude_model,
            base_url=settings.anthropic_base_url,
        )
        return ClaudeAgent(self._connect, cli, mcp_url=self._mcp_url)
