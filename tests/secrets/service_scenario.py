"""A scenario that runs a service through successes and failures and captures everything that leaves it."""

import asyncio
import json
from asyncio import Event
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latchkey.testing.postgresql import PostgreSQL
from tests.e2e.claude_service import save_artifact_step
from tests.e2e.service_process import Environment, Replica, issue_token, running_service
from tests.fakes.model_script import Reply, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.integration.claude.claude_harness import processes_in
from tests.polling import wait_until
from tests.secrets.canary import Canary
from tests.secrets.captured_output import CapturedOutput
from tests.support.operations import LISTINGS

EVENTS = {"accept": "text/event-stream"}


@dataclass
class Models:
    """The two model servers, each with its own API key."""

    chat: ModelServer
    files: ModelServer


@dataclass
class ServiceScenario:
    """A replica and its captured output. Canaries are planted before the start or minted by the service."""

    replica: Replica
    models: Models
    planted: Mapping[str, Canary]
    jwt: str
    folder: Path
    output: CapturedOutput = field(default_factory=CapturedOutput)
    created: list[Canary] = field(default_factory=list)

    @property
    def canaries(self) -> list[Canary]:
        return [*self.planted.values(), *self.created, Canary.from_secret("user's token", self.jwt)]

    async def send(self, method: str, below: str, **given: Any) -> Any:
        return await self.output.send(self.replica, method, f"/api/ada/{below}", self.jwt, **given)

    async def chat(self, message: str, **given: Any) -> Any:
        makes_file = given.pop("makes_file", False)
        return await self.send("POST", "chat", json={"message": message, "artifact_generation": makes_file}, **given)

    async def run_turns(self) -> None:
        """Run turns that succeed, one of them streamed, and turns whose model quotes its API key in errors."""
        model, key = self.models.chat.script, self.planted["openai"].text
        model += [calls(("add_task", '{"title": "Buy milk"}'), ("add_task", "{}")), says("Done.")]
        assert (await self.chat("Buy milk")).status_code == 200
        model.append(says("Hello."))
        assert (await self.chat("Hello", headers=EVENTS)).status_code == 200
        for status in (400, 401, 403, 404, 429, 500):
            model.append(fails(status, f"Incorrect API key provided: {key}", x_should_retry="false"))
            assert (await self.chat("Hello")).status_code >= 500
        model += [
            Reply(200, f"<html>{key}</html>".encode(), "text/html"),
            Reply(200, broken_stream(key), EVENTS["accept"]),
        ]
        for _ in range(2):
            assert (await self.chat("Hello", headers=EVENTS)).status_code == 200

    async def run_file_turns(self) -> None:
        """Run the file agent and capture its process; run it again with a model that refuses its key."""
        rest, files = Event(), self.models.files.script
        files += [save_artifact_step(), says("Here ", "it is.").held(rest)]
        turn = asyncio.create_task(self.chat("A plan, please", makes_file=True))
        await wait_until(self._has_saved)
        self.output.capture_processes(processes_in(self.folder), self.folder)
        environment = dict(line.split(b"=", 1) for line in self.output["environment"].split(b"\0") if b"=" in line)
        self.created.append(Canary.from_secret("turn's token", environment[b"LATCHKEY_CONTEXT_TOKEN"].decode()))
        rest.set()
        assert (await turn).status_code == 200
        files.append(fails(401, f"invalid x-api-key: {self.planted['anthropic'].text}"))
        assert (await self.chat("A plan, please", makes_file=True)).status_code == 502

    async def use_minted_token(self) -> None:
        """Mint a context token and use it correctly, incorrectly, on the wrong endpoint, and after it was revoked."""
        minted = (await self.send("POST", "context-tokens", json={"grants": ["tasks:read"]})).json()
        self.created.append(Canary.from_secret("minted token", minted["token"]))
        for request in (
            tool_call("list_tasks", {}),
            tool_call("delete_task", {}),
            tool_call("list_tasks", {"x": 1}),
            "{",
        ):
            await self.call_mcp(minted["token"], content=request)
        await self.output.send(self.replica, "GET", "/api/ada/tasks", minted["token"])
        await self.send("GET", "context-tokens")
        await self.send("DELETE", f"context-tokens/{minted['id']}")
        await self.call_mcp(minted["token"], content=tool_call("list_tasks", {}))

    async def call_mcp(self, bearer: str, **given: Any) -> None:
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        await self.output.send(self.replica, "POST", "/mcp", bearer, headers=headers, **given)

    async def send_misplaced_credentials(self) -> None:
        """Send credentials in wrong places, as users do by mistake. No response may repeat one."""
        minted = self.created[-1].text
        for credential in (self.jwt, minted, self.planted["auth"].text):
            for path in (f"/mcp?token={credential}", f"/api/ada/tasks?cursor={credential}", f"/{credential}"):
                await self.output.send(self.replica, "GET", path, self.jwt)
            await self.output.send(self.replica, "GET", f"/api/{credential}/tasks", self.jwt)
            await self.send("GET", f"tasks/{credential}")
            await self.send("POST", "tasks", json={"title": "Tea", "token": credential})
            for authorization in (f"Basic {credential}", f"Bearer {credential}x", f"Bearer  {credential} {credential}"):
                headers = {"authorization": authorization}
                await self.output.send(self.replica, "POST", "/mcp", headers=headers, content=b"{}")
                await self.output.send(self.replica, "GET", "/api/ada/tasks", headers=headers)

    async def read_everything(self) -> None:
        for path in ("/schema/openapi.json", "/health/live", "/health/ready"):
            await self.output.send(self.replica, "GET", path)
        await self.call_mcp(self.jwt, content=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        for listing in LISTINGS:
            await self.send("GET", listing)
        for conversation in (await self.send("GET", "conversations")).json()["items"]:
            for part in ("messages", "turns"):
                await self.send("GET", f"conversations/{conversation['id']}/{part}")

    async def is_not_ready(self) -> bool:
        response = await self.output.send(self.replica, "GET", "/health/ready")
        return bool(response.status_code == 503)

    async def break_database(self, server: PostgreSQL, database: str) -> None:
        """Damage the database, which causes an internal error with a traceback, and then make it unavailable."""
        own = PostgreSQL(server.admin.set(database=database))
        await asyncio.to_thread(own.execute, "ALTER TABLE tasks RENAME COLUMN title TO name")
        assert (await self.send("GET", "tasks")).status_code == 500
        await self.call_mcp(self.jwt, content=tool_call("list_tasks", {}))
        await asyncio.to_thread(own.execute, "ALTER TABLE tasks RENAME COLUMN name TO title")
        await asyncio.to_thread(server.execute, f"ALTER DATABASE {database} CONNECTION LIMIT 0")
        await asyncio.to_thread(
            server.execute,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
        )
        assert (await self.send("GET", "tasks")).status_code == 503
        assert (await self.chat("Hello")).status_code == 503
        await wait_until(self.is_not_ready)  # the last result is used for a second

    async def _has_saved(self) -> bool:
        return len(self.models.files.requests) == 2

    def stop(self) -> None:
        """Stop the service and capture its log and remaining files."""
        self.replica.process.terminate()
        self.replica.process.join()
        self.output.put("log", self.replica.log_text.encode())
        self.output.capture_model_requests(self.models.chat.requests, "authorization")
        self.output.capture_model_requests(self.models.files.requests, "x-api-key")
        self.output.capture_files(self.folder)


@asynccontextmanager
async def service_scenario(
    home: Path, environment: Environment, models: Models, planted: Mapping[str, Canary]
) -> AsyncIterator[ServiceScenario]:
    folder = home.parent / "tmp"
    folder.mkdir()
    jwt = issue_token("ada", home, environment)
    with running_service(home=home, environment={**environment, "TMPDIR": str(folder)}) as replica:
        yield ServiceScenario(replica, models, planted, jwt, folder)


def tool_call(name: str, arguments: dict[str, Any]) -> str:
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})


def broken_stream(key: str) -> bytes:
    error = {"type": "error", "code": "invalid_api_key", "message": f"Incorrect API key provided: {key}", "param": None}
    return f"event: error\ndata: {json.dumps(error)}\n\n".encode()
