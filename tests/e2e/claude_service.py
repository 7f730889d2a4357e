"""Where files are made: a service, the Claude CLI that it starts, and a scripted model for that to ask."""

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
"""What the rehearsal agent does by itself; a scripted model does as it is told."""


@dataclass(frozen=True)
class ClaudeService:
    """A replica as its user `ada` sees it, and as whoever looks at the machine does."""

    replica: Replica
    token: str
    folder: Path

    def request(self, method: str, below: str, **given: Any) -> httpx2.Response:
        return self.replica.request(method, f"/api/ada/{below}", self.token, **given)

    async def file_turn(self, message: str = MESSAGE, **given: Any) -> httpx2.Response:
        body = {"message": message, "artifact_generation": True}
        return await asyncio.to_thread(self.request, "POST", "chat", json=body, **given)

    async def items(self, listing: str) -> list[dict[str, Any]]:
        page = await asyncio.to_thread(self.request, "GET", listing)
        found: list[dict[str, Any]] = page.json()["items"]
        return found

    @property
    def processes(self) -> list[int]:
        return processes_in(self.folder)

    @property
    def command_lines(self) -> bytes:
        """The arguments of those processes, which everybody on the machine can see."""
        return b"".join(Path(f"/proc/{process}/cmdline").read_bytes() for process in self.processes)

    def revoke_tokens(self) -> None:
        """Take every token away."""
        for token in self.request("GET", "context-tokens").json()["items"]:
            assert self.request("DELETE", f"context-tokens/{token['id']}").status_code == 204

    @property
    def workspaces(self) -> list[Path]:
        return list(self.folder.glob("latchkey-claude-*/*"))

    @property
    def file_contents(self) -> bytes:
        """All that is in files there now."""
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


class ConcurrentScript(deque[Step]):
    """A script for turns side by side: one answer to whoever has no result of a call yet, and another to the rest."""

    def __init__(self, model: ModelServer, first: Answer, then: Answer) -> None:
        super().__init__([first])
        self._model, self._first, self._then = model, first, then

    def popleft(self) -> Step:
        return self._then if self._model.requests[-1].results else self._first


class InterruptingScript(deque[Step]):
    """A script with something that happens while the model thinks about its second answer."""

    def __init__(self, surprise: Callable[[], None], steps: list[Step]) -> None:
        super().__init__(steps)
        self._surprise = surprise
        self._asked = 0

    def popleft(self) -> Step:
        self._asked += 1
        if self._asked == 2:
            self._surprise()
        return super().popleft()


@contextmanager
def claude_service(home: Path, environment: Environment, token: str) -> Iterator[ClaudeService]:
    folder = home.parent / "tmp"
    folder.mkdir(exist_ok=True)
    with running_service(home=home, environment={**environment, "TMPDIR": str(folder)}) as replica:
        yield ClaudeService(replica, token, folder)


def claude_settings(model: ModelServer) -> dict[str, str]:
    """The variables by which files, and nothing else, are made by the CLI: it is there and has a key."""
    return {
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": model.base_url.removesuffix("/v1"),
        "LATCHKEY_CLAUDE_MODEL": "fake",
    }


def save_artifact_step(**changes: str) -> Answer:
    return calls(("save_artifact", json.dumps({**PLAN, **changes})))
