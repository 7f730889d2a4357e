"""The agents that the settings ask for, each made once."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import mcp
from msgspec import Struct

from latchkey.config import AgentName, ConfigurationError, Settings
from latchkey.domain.ports import Agent
from latchkey.domain.scope import TokenSecret
from latchkey.infrastructure.agents.claude import ClaudeAgent
from latchkey.infrastructure.agents.claude_cli import ClaudeCli, find_cli
from latchkey.infrastructure.agents.openai import OpenAIAgent
from latchkey.infrastructure.agents.rehearsal import RehearsalAgent


class Connect(Protocol):
    def __call__(self, secret: TokenSecret) -> AbstractAsyncContextManager[mcp.Client]: ...


class Staffing(Struct, frozen=True):
    """Who carries which kind of turn, None for nobody, and the Claude CLI that was found, whether needed or not."""

    chat: AgentName | None
    files: AgentName | None
    cli: Path | None

    @classmethod
    def of(cls, settings: Settings) -> "Staffing":
        """Raises `ConfigurationError` for an agent that could not work. Nothing is made or started yet."""
        cli = find_cli(Path(settings.claude_cli) if settings.claude_cli else None)
        staffing = cls(settings.agent_name, settings.file_agent_name(has_claude=cli is not None), cli)
        if faults := staffing._faults(settings):
            raise ConfigurationError(*faults)
        return staffing

    def _faults(self, settings: Settings) -> list[str]:
        asked = {self.chat, self.files}
        faults = []
        if "claude" in asked and not settings.anthropic_api_key:
            faults.append("ANTHROPIC_API_KEY: must be set for the agent `claude`")
        if settings.claude_cli and self.cli is None:
            faults.append("LATCHKEY_CLAUDE_CLI: must be the path of the Claude CLI, a program")
        elif "claude" in asked and self.cli is None:
            faults.append("LATCHKEY_CLAUDE_CLI: must be set, or `pip install latchkey[claude]` brings one")
        if "openai" in asked and not (settings.openai_api_key or settings.openai_base_url):
            faults.append("OPENAI_API_KEY: must be set for the agent `openai`, or OPENAI_BASE_URL")
        return faults


class Agents:
    """`mcp_url` is where a process on this machine reaches our MCP endpoint."""

    def __init__(self, settings: Settings, connect: Connect, mcp_url: str) -> None:
        """Raises `ConfigurationError` for an agent that could not work."""
        self._settings = settings
        self._connect = connect
        self._mcp_url = mcp_url
        self._staffing = Staffing.of(settings)
        self._made: dict[AgentName, OpenAIAgent | ClaudeAgent] = {}
        self.chat = self._named(self._staffing.chat)
        self.files = self._named(self._staffing.files)

    async def aclose(self) -> None:
        for agent in self._made.values():
            await agent.aclose()

    def _named(self, name: AgentName | None) -> Agent | None:
        if name is None:
            return None
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: AgentName) -> OpenAIAgent | ClaudeAgent:
        settings = self._settings
        if name == "rehearsal":
            return RehearsalAgent(self._connect)
        if name == "claude":
            return ClaudeAgent(self._connect, self._cli(), mcp_url=self._mcp_url, at_once=settings.claude_processes)
        return OpenAIAgent(
            self._connect,
            model=settings.model,
            api_key=settings.openai_api_key or "none",
            base_url=settings.openai_base_url,
            api=settings.openai_api,
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
