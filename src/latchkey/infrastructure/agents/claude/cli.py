"""The Claude CLI as it is installed: where it is found, which version it is, and how it is configured."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, json

from latchkey.domain.agent import AgentRun
from latchkey.infrastructure.agents.claude.workspace import Workspace

TESTED_VERSION = "2.1.327"
"""The version whose behaviour the tests have seen. Much of what is relied on is documented nowhere."""

_PATIENCE_S = 20


class ClaudeCli(Struct, frozen=True, kw_only=True):
    """The binary, and the model that it is to ask. Without a `base_url` that is Anthropic's own."""

    path: Path
    api_key: str
    model: str = "sonnet"
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"ClaudeCli(path={str(self.path)!r}, model={self.model!r})"


def find_cli(configured: Path | None = None) -> Path | None:
    """The configured binary and no other; else the one that the `claude` extra brings; else the one on the PATH."""
    if configured is not None:
        return configured if _is_program(configured) else None
    bundled = _bundled()
    if bundled is not None:
        return bundled
    on_path = shutil.which("claude")
    return Path(on_path) if on_path else None


def cli_version(cli: Path) -> str | None:
    """What the binary says of itself, such as `2.1.327`; None if it says nothing of the kind."""
    try:
        said = subprocess.run(  # noqa: S603 - the operator's own choice of program
            [cli, "--version"],
            env={"PATH": os.defpath, "DISABLE_AUTOUPDATER": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(rb"\d+\.\d+\.\d+", said)
    return found[0].decode() if found else None


def _bundled() -> Path | None:
    """The package is only a box for the binary: it is looked for, not imported."""
    package = find_spec("claude_agent_sdk")
    folders = (package.submodule_search_locations or []) if package else []
    binaries = (Path(folder) / "_bundled" / "claude" for folder in folders)
    return next(filter(_is_program, binaries), None)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


SERVER = "latchkey"
TOKEN_VARIABLE = "LATCHKEY_CONTEXT_TOKEN"

_INHERITED = ("PATH", "LANG", "TZ", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
"""All that the CLI is told of our own environment: how to find programs and the way out."""

_SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_COMPACT": "1",
    "ENABLE_TOOL_SEARCH": "false",
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_SKIP_MCP_DEBUG_LOG_FILES": "1",
    "CLAUDE_CODE_MAX_RETRIES": "1",
    # A second answer, asked for in one piece, would not fit what was told of the first.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # Calls of tools that only read would otherwise be made side by side, and be recorded in any order.
    "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY": "1",
}


def tool_name(name: str) -> str:
    """What the CLI calls one of our tools."""
    return f"mcp__{SERVER}__{name}"


def arguments(cli: ClaudeCli, agent_run: AgentRun, tools: list[str], home: Workspace) -> list[str]:
    """No secret is among them, and nothing that the person wrote."""
    allowed = ["--allowedTools", ",".join(map(tool_name, tools))] if tools else []
    return [
        *("-p", "--bare", "--disable-slash-commands", "--no-session-persistence", "--setting-sources="),
        *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
        *("--strict-mcp-config", "--mcp-config", str(home.mcp_config), "--tools", "", *allowed),
        *("--permission-mode", "dontAsk", "--permission-prompts", "none"),
        *("--max-turns", str(agent_run.max_steps), "--model", cli.model),
        # As an argument the instructions would be seen by everybody on the machine, and could be too long for one.
        *("--system-prompt-file", str(home.system_prompt)),
    ]


def environment(cli: ClaudeCli, agent_run: AgentRun, mcp_url: str, home: Workspace) -> dict[str, str]:
    """The only place where the turn's token and the key of the model are."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    endpoint = {"ANTHROPIC_BASE_URL": cli.base_url} if cli.base_url else {}
    return {
        **inherited,
        **_SWITCHES,
        **endpoint,
        "NO_PROXY": _without_proxy(mcp_url),
        "ANTHROPIC_API_KEY": cli.api_key,
        TOKEN_VARIABLE: agent_run.secret.text,
        "HOME": str(home.home),
        "TMPDIR": str(home.tmp),
    }


def _without_proxy(mcp_url: str) -> str:
    """The CLI would send a turn's token through the proxy, were our own address not among the exceptions."""
    hosts = [os.environ.get("NO_PROXY"), urlsplit(mcp_url).hostname]
    return ",".join(filter(None, hosts))


def write_config(home: Workspace, agent_run: AgentRun, mcp_url: str) -> None:
    """Write the files. The CLI itself puts the token in the place of the variable."""
    authorization = {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"}
    server = {"type": "http", "url": mcp_url, "headers": authorization}
    home.write(home.mcp_config, json.encode({"mcpServers": {SERVER: server}}))
    home.write(home.system_prompt, agent_run.instructions.encode())
