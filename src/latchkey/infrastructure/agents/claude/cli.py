"""The Claude CLI as a program: where it is installed, its version, its command line and its environment."""

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
"""The version that the tests cover. Much of its behaviour that we use is undocumented."""

MCP_SERVER_NAME = "latchkey"
TOKEN_VARIABLE = "LATCHKEY_CONTEXT_TOKEN"

_VERSION_TIMEOUT_S = 20

_INHERITED = ("PATH", "LANG", "TZ", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
"""The only variables of our own environment that the CLI receives: how to find programs, a proxy and certificates."""

_HOUR_MS = "3600000"

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
    # The fallback requests a second answer, which would not match the published part of the first.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # The service limits how long a tool may take. Without these, the CLI gives up after 60 s, or 300 s without a byte.
    "MCP_TOOL_TIMEOUT": _HOUR_MS,
    "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": _HOUR_MS,
    # Otherwise read-only tools are called concurrently, and recorded in any order.
    "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY": "1",
}


class ClaudeCli(Struct, frozen=True, kw_only=True):
    """The binary and its model. Without `base_url`, the CLI uses Anthropic's server."""

    path: Path
    api_key: str
    model: str = "sonnet"
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"ClaudeCli(path={str(self.path)!r}, model={self.model!r})"


def find_cli(configured: Path | None = None) -> Path | None:
    """The configured binary and no other; otherwise the binary of the `claude` extra, or the one on the PATH."""
    if configured is not None:
        return configured if _is_executable(configured) else None
    bundled = _find_bundled()
    if bundled is not None:
        return bundled
    on_path = shutil.which("claude")
    return Path(on_path) if on_path else None


def cli_version(cli: Path) -> str | None:
    """The version that the binary prints, such as `2.1.327`, or None if it prints none."""
    try:
        output = subprocess.run(  # noqa: S603 - the operator has chosen the program
            [cli, "--version"],
            env={"PATH": os.defpath, "DISABLE_AUTOUPDATER": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.match(rb"\d+\.\d+\.\d+", output)
    return version[0].decode() if version else None


def _find_bundled() -> Path | None:
    """The package `claude_agent_sdk` contains the binary. It is not imported."""
    package = find_spec("claude_agent_sdk")
    folders = (package.submodule_search_locations or []) if package else []
    binaries = (Path(folder) / "_bundled" / "claude" for folder in folders)
    return next(filter(_is_executable, binaries), None)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def cli_tool_name(name: str) -> str:
    """The CLI's name of one of our tools."""
    return f"mcp__{MCP_SERVER_NAME}__{name}"


def command_arguments(cli: ClaudeCli, agent_run: AgentRun, tools: list[str], workspace: Workspace) -> list[str]:
    """They contain no secret and no text of the user: every process of the machine can read them."""
    allowed = ["--allowedTools", ",".join(map(cli_tool_name, tools))] if tools else []
    return [
        *("-p", "--bare", "--disable-slash-commands", "--no-session-persistence", "--setting-sources="),
        *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
        *("--strict-mcp-config", "--mcp-config", str(workspace.mcp_config), "--tools", "", *allowed),
        *("--permission-mode", "dontAsk", "--permission-prompts", "none"),
        *("--max-turns", str(agent_run.max_steps), "--model", agent_run.options.model or cli.model),
        *(("--effort", effort) if (effort := agent_run.options.reasoning_effort) else ()),
        # A file, because instructions can be longer than an argument may be.
        *("--system-prompt-file", str(workspace.system_prompt)),
    ]


def environment(cli: ClaudeCli, agent_run: AgentRun, mcp_url: str, workspace: Workspace) -> dict[str, str]:
    """The only place that contains the turn's context token and the key of the model."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    endpoint = {"ANTHROPIC_BASE_URL": cli.base_url} if cli.base_url else {}
    most = agent_run.options.max_output_tokens
    return {
        **inherited,
        **_SWITCHES,
        **endpoint,
        **({"CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(most)} if most else {}),
        "NO_PROXY": _no_proxy(mcp_url),
        "ANTHROPIC_API_KEY": cli.api_key,
        TOKEN_VARIABLE: agent_run.secret.text,
        "HOME": str(workspace.home),
        "TMPDIR": str(workspace.tmp),
    }


def _no_proxy(mcp_url: str) -> str:
    """Add our own host to the exceptions: otherwise the CLI would send the context token through the proxy."""
    hosts = [os.environ.get("NO_PROXY"), urlsplit(mcp_url).hostname]
    return ",".join(filter(None, hosts))


def write_config(workspace: Workspace, agent_run: AgentRun, mcp_url: str, tools: list[str]) -> None:
    """Write the CLI's files. They name the variable of the context token, and the CLI inserts its value.

    Without tools there is no MCP server, and no need for a token that is valid.
    """
    authorization = {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"}
    server = {"type": "http", "url": mcp_url, "headers": authorization}
    servers = {MCP_SERVER_NAME: server} if tools else {}
    workspace.write(workspace.mcp_config, json.encode({"mcpServers": servers}))
    workspace.write(workspace.system_prompt, agent_run.instructions.encode())
