"""The backend of scenarios: a service that can be killed and started again, its users, and its scripted model."""

import asyncio
import json
from asyncio import Semaphore
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from latchkey.bootstrap.identity import create_signer
from latchkey.config import Settings
from latchkey.domain.credentials import UserId
from latchkey.testing.processes import free_port
from tests.browser.browser_driver import Handlers
from tests.e2e.service_process import BASE_SETTINGS, Environment, running_service
from tests.fakes.model_script import Answer, Step, calls, fails
from tests.fakes.model_server import ModelServer
from tests.support.service import model_variables

ASSISTANTS = """
[assistant.careful]
title = "Careful"
approve = ["delete_task"]
"""
"""An assistant that asks before it deletes a task."""

_EVENTS_BEFORE_TEXT = 3
_ALL = 10_000


@dataclass
class Backend:
    """A service on one port and database."""

    home: Path
    environment: Environment
    model: ModelServer
    port: int = field(default_factory=free_port)
    _running: ExitStack = field(default_factory=ExitStack)
    _paces: list[Semaphore] = field(default_factory=list)
    _is_running: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_user(self, user_id: str | None = None) -> dict[str, str]:
        user_id = user_id or f"ada-{uuid4().hex[:8]}"
        token = create_signer(Settings.read(self.environment)).sign(UserId(user_id), timedelta(hours=1))
        return {"id": user_id, "token": token}

    async def start(self) -> None:
        if not self._is_running:
            service = running_service(home=self.home, environment=self.environment, port=self.port)
            await asyncio.to_thread(self._running.enter_context, service)
            self._is_running = True

    async def kill(self) -> None:
        """`kill -9`."""
        self._is_running = False
        await asyncio.to_thread(self._running.close)

    async def reset(self) -> None:
        """Prepare for the next scenario."""
        self.model.script.clear()
        self.model.requests.clear()
        await self.release()
        self._paces.clear()
        await self.start()

    @property
    def handlers(self) -> Handlers:
        return {
            "script_model": self._script,
            "send_pieces": self._send_pieces,
            "release_model": self.release,
            "model_requests": self._requests,
            "kill_service": self.kill,
            "start_service": self.start,
        }

    async def _script(self, steps: list[dict[str, Any]]) -> None:
        self.model.script.extend([self._step(**step) for step in steps])

    def _step(self, *, fails_with: int | None = None, message: str = "no", paced: bool = False, **answer: Any) -> Step:
        if fails_with is not None:
            return fails(fails_with, message, x_should_retry="false")
        tool_calls = [(name, json.dumps(arguments)) for name, arguments in answer.pop("calls", [])]
        step = calls(*tool_calls, saying=tuple(answer.pop("says", ())))
        return self._modified(step, paced=paced, **answer)

    def _modified(self, step: Answer, *, paced: bool, broken: bool = False) -> Answer:
        if paced:
            self._paces.append(Semaphore(_EVENTS_BEFORE_TEXT))
            step = step.paced(self._paces[-1])
        return step.broken() if broken else step

    async def _send_pieces(self, count: int) -> None:
        """Let the paced answer that was scripted last send this many more pieces."""
        for _ in range(count):
            self._paces[-1].release()

    async def release(self) -> None:
        for pace in self._paces:
            for _ in range(_ALL):
                pace.release()

    async def _requests(self) -> list[list[tuple[str, ...]]]:
        return [request.conversation for request in self.model.requests]


@asynccontextmanager
async def running_backend(home: Path, database_url: str, origin: str, model: ModelServer) -> AsyncIterator[Backend]:
    environment = {
        **BASE_SETTINGS,
        **model_variables(model),
        "OPENAI_API_KEY": "key",
        "LATCHKEY_DATABASE_URL": database_url,
        "LATCHKEY_ALLOWED_ORIGINS": f"{origin},http://localhost",  # pages, and the development server of projects
        "LATCHKEY_TURN_LEASE_S": "2",
        "LATCHKEY_CONSOLE": "true",
        "LATCHKEY_ASSISTANTS": "assistants.toml",
    }
    (home / "assistants.toml").write_text(ASSISTANTS)
    backend = Backend(home, environment, model)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.kill()
        await backend.release()
