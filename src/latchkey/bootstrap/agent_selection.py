"""Who carries which kind of turn, as the settings have it."""

from pathlib import Path

from msgspec import Struct

from latchkey.config import AgentName, ConfigurationError, Settings
from latchkey.infrastructure.agents.claude.cli import find_cli


class AgentSelection(Struct, frozen=True):
    """None is nobody. The Claude CLI is the one that was found, whether needed or not."""

    chat: AgentName | None
    files: AgentName | None
    cli: Path | None

    @classmethod
    def of(cls, settings: Settings) -> "AgentSelection":
        """Raises `ConfigurationError` for an agent that could not work. Nothing is made or started yet."""
        cli = find_cli(Path(settings.claude_cli) if settings.claude_cli else None)
        selection = cls(settings.agent_name, settings.file_agent_name(has_claude=cli is not None), cli)
        if faults := selection._faults(settings):
            raise ConfigurationError(*faults)
        return selection

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
