"""A service whose file agent is the Claude CLI, with a scripted model for the CLI."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.service_process import Environment, Replica, running_service
from tests.fakes.model_script import Answer, Step, calls
from tests.fakes.model_server import ModelServer
from tests.integration.claude.claude_harness import processes_in

API_KEY = "sk-ant-very-secret"
PLAN = {"title": 'The "plan" | one', "content_markdown": "# Plan\n\nBuy milk. 計画"}
MESSAGE = f"/save_artifact {json.dumps(PLAN)}"
"""The rehearsal agent executes this command; a scripted model ignores it."""


@dataclass(frozen=True)
class ClaudeService:
    """A replica with its user `ada`, and a view of its processes and files."""

    replica: Replica
    token: str
    folder: Path

    def request(self, method: str, below: str, **options: Any) -> httpx2.Response:
        return self.replica.request(method, f"/api/ada/{below}", self.token, **options)

    async def file_turn(self, message: str = MESSAGE, **options: Any) -> httpx2.Response:
        body = {"message": message, "artifact_generation": True}
        return await asyncio.to_thread(self.request, "POST", "chat", json=body, **options)

    async def items(self, listing: str) -> list[dict[str, Any]]:
        page = await asyncio.to_thread(self.request, "GET", listing)
        items: list[dict[str, Any]] = page.json()["items"]
        return items

    @property
    def processes(self) -> list[int]:
        return processes_in(self.folder)

    @property
    def command_lines(self) -> bytes:
        """The command lines of those processes, which every user of the machine can read."""
        return b"".join(Path(f"/proc/{process}/cmdline").read_bytes() for process in self.processes)

    def revoke_tokens(self) -> None:
        """Revoke all context tokens."""
        for token in self.request("GET", "context-tokens").json()["items"]:
            assert self.request("DELETE", f"context-tokens/{token['id']}").status_code == 204

    @property
    def workspaces(self) -> list[Path]:
        return list(self.folder.glob("latchkey-claude-*/*"))

    @property
    def file_contents(self) -> bytes:
        """The contents of all files below the folder."""
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


class ConcurrentScript(deque[Step]):
    """A script for concurrent turns: `first` answers a request without tool results, `then` answers all others."""

    def __init__(self, model: ModelServer, first: Answer, then: Answer) -> None:
        super().__init__([first])
        self._model, self._first, self._then = model, first, then

    def popleft(self) -> Step:
        return self._then if self._model.requests[-1].results else self._first


class InterruptingScript(deque[Step]):
    """A script that calls a function before its second answer."""

    def __init__(self, interrupt: Callable[[], None], steps: list[Step]) -> None:
        super().__init__(steps)
        self._interrupt = interrupt
        self._requests = 0

    def popleft(self) -> Step:
        self._requests += 1
        if self._requests == 2:
            self._interrupt()
        return super().popleft()


@contextmanager
def claude_service(home: Path, environment: Environment, token: str) -> Iterator[ClaudeService]:
    folder = home.parent / "tmp"
    folder.mkdir(exist_ok=True)
    with running_service(home=home, environment={**environment, "TMPDIR": str(folder)}) as replica:
        yield ClaudeService(replica, token, folder)


def claude_settings(model: ModelServer) -> dict[str, str]:
    """The settings with which the CLI makes files, and nothing else: a key and the model."""
    return {
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": model.base_url.removesuffix("/v1"),
        "LATCHKEY_CLAUDE_MODEL": "fake",
    }


def save_artifact_step(**changes: str) -> Answer:
    return calls(("save_artifact", json.dumps({**PLAN, **changes})))
