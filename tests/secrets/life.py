"""A service's life, with everything that can go right and wrong in it, watched from every side."""

import asyncio
import json
from asyncio import Event
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.claude_service import save_artifact_step
from tests.e2e.service_process import Environment, Replica, issue_token, running_service
from tests.fakes.model_script import Reply, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.integration.claude.claude_harness import processes_in
from tests.polling import wait_until
from tests.postgresql import PostgreSQL
from tests.secrets.canary import Canary
from tests.secrets.haul import Haul
from tests.support.operations import LISTINGS

EVENTS = {"accept": "text/event-stream"}


@dataclass
class Models:
    """The two that are asked, each by its own key."""

    chat: ModelServer
    files: ModelServer


@dataclass
class Life:
    """One replica, and what was seen of it so far. Canaries are planted before it starts; it mints others itself."""

    replica: Replica
    models: Models
    planted: Mapping[str, Canary]
    jwt: str
    folder: Path
    haul: Haul = field(default_factory=Haul)
    hatched: list[Canary] = field(default_factory=list)

    @property
    def canaries(self) -> list[Canary]:
        return [*self.planted.values(), *self.hatched, Canary.found("user's token", self.jwt)]

    async def ask(self, method: str, below: str, **given: Any) -> Any:
        return await self.haul.ask(self.replica, method, f"/api/ada/{below}", self.jwt, **given)

    async def say(self, message: str, **given: Any) -> Any:
        makes_file = given.pop("makes_file", False)
        return await self.ask("POST", "chat", json={"message": message, "artifact_generation": makes_file}, **given)

    async def talk(self) -> None:
        """Turns that succeed, one of them streamed, and turns whose model quotes the key that it was given."""
        chat, key = self.models.chat.script, self.planted["openai"].text
        chat += [calls(("add_task", '{"title": "Buy milk"}'), ("add_task", "{}")), says("Done.")]
        assert (await self.say("Buy milk")).status_code == 200
        chat.append(says("Hello."))
        assert (await self.say("Hello", headers=EVENTS)).status_code == 200
        for status in (400, 401, 403, 404, 429, 500):
            chat.append(fails(status, f"Incorrect API key provided: {key}", x_should_retry="false"))
            assert (await self.say("Hello")).status_code >= 500
        chat += [
            Reply(200, f"<html>{key}</html>".encode(), "text/html"),
            Reply(200, broken_stream(key), EVENTS["accept"]),
        ]
        for _ in range(2):
            assert (await self.say("Hello", headers=EVENTS)).status_code == 200

    async def make_files(self) -> None:
        """By a process of its own, looked at while it works; and once more with a model that refuses its key."""
        rest, files = Event(), self.models.files.script
        files += [save_artifact_step(), says("Here ", "it is.").held(rest)]
        turn = asyncio.create_task(self.say("A plan, please", makes_file=True))
        await wait_until(self._has_saved)
        self.haul.subscriptions(processes_in(self.folder), self.folder)
        environment = dict(line.split(b"=", 1) for line in self.haul["environment"].split(b"\0") if b"=" in line)
        self.hatched.append(Canary.found("turn's token", environment[b"LATCHKEY_CONTEXT_TOKEN"].decode()))
        rest.set()
        assert (await turn).status_code == 200
        files.append(fails(401, f"invalid x-api-key: {self.planted['anthropic'].text}"))
        assert (await self.say("A plan, please", makes_file=True)).status_code == 502

    async def mint(self) -> None:
        """A token for somebody else, which is used well, badly, in the wrong place, and after it was revoked."""
        minted = (await self.ask("POST", "context-tokens", json={"grants": ["tasks:read"]})).json()
        self.hatched.append(Canary.found("minted token", minted["token"]))
        for request in (
            tool_call("list_tasks", {}),
            tool_call("delete_task", {}),
            tool_call("list_tasks", {"x": 1}),
            "{",
        ):
            await self.present(minted["token"], content=request)
        await self.haul.ask(self.replica, "GET", "/api/ada/tasks", minted["token"])
        await self.ask("GET", "context-tokens")
        await self.ask("DELETE", f"context-tokens/{minted['id']}")
        await self.present(minted["token"], content=tool_call("list_tasks", {}))

    async def present(self, bearer: str, **given: Any) -> None:
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        await self.haul.ask(self.replica, "POST", "/mcp", bearer, headers=headers, **given)

    async def misplace(self) -> None:
        """Credentials where they do not belong, which is where people put them. No answer repeats one."""
        minted = self.hatched[-1].text
        for credential in (self.jwt, minted, self.planted["auth"].text):
            for path in (f"/mcp?token={credential}", f"/api/ada/tasks?cursor={credential}", f"/{credential}"):
                await self.haul.ask(self.replica, "GET", path, self.jwt)
            await self.haul.ask(self.replica, "GET", f"/api/{credential}/tasks", self.jwt)
            await self.ask("GET", f"tasks/{credential}")
            await self.ask("POST", "tasks", json={"title": "Tea", "token": credential})
            for authorization in (f"Basic {credential}", f"Bearer {credential}x", f"Bearer  {credential} {credential}"):
                headers = {"authorization": authorization}
                await self.haul.ask(self.replica, "POST", "/mcp", headers=headers, content=b"{}")
                await self.haul.ask(self.replica, "GET", "/api/ada/tasks", headers=headers)

    async def read_everything(self) -> None:
        for path in ("/schema/openapi.json", "/health/live", "/health/ready"):
            await self.haul.ask(self.replica, "GET", path)
        await self.present(self.jwt, content=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        for listing in LISTINGS:
            await self.ask("GET", listing)
        for conversation in (await self.ask("GET", "conversations")).json()["items"]:
            for part in ("messages", "turns"):
                await self.ask("GET", f"conversations/{conversation['id']}/{part}")

    async def break_down(self, server: PostgreSQL, database: str) -> None:
        """First the database is not what it should be, which is a bug with a traceback, and then it is gone."""
        own = PostgreSQL(server.admin.set(database=database))
        await asyncio.to_thread(own.execute, "ALTER TABLE tasks RENAME COLUMN title TO name")
        assert (await self.ask("GET", "tasks")).status_code == 500
        await self.present(self.jwt, content=tool_call("list_tasks", {}))
        await asyncio.to_thread(own.execute, "ALTER TABLE tasks RENAME COLUMN name TO title")
        await asyncio.to_thread(server.execute, f"ALTER DATABASE {database} CONNECTION LIMIT 0")
        await asyncio.to_thread(
            server.execute,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
        )
        assert (await self.ask("GET", "tasks")).status_code == 503
        assert (await self.say("Hello")).status_code == 503
        assert (await self.haul.ask(self.replica, "GET", "/health/ready")).status_code == 503

    async def _has_saved(self) -> bool:
        return len(self.models.files.requests) == 2

    def end(self) -> None:
        """As a service is stopped; what it said, and left behind, is kept."""
        self.replica.process.terminate()
        self.replica.process.join()
        self.haul.put("log", self.replica.log_text.encode())
        self.haul.overhear(self.models.chat.requests, "authorization")
        self.haul.overhear(self.models.files.requests, "x-api-key")
        self.haul.look_through(self.folder)


@asynccontextmanager
async def a_life(
    home: Path, environment: Environment, models: Models, planted: Mapping[str, Canary]
) -> AsyncIterator[Life]:
    folder = home.parent / "tmp"
    folder.mkdir()
    jwt = issue_token("ada", home, environment)
    with running_service(home=home, environment={**environment, "TMPDIR": str(folder)}) as replica:
        yield Life(replica, models, planted, jwt, folder)


def tool_call(name: str, arguments: dict[str, Any]) -> str:
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})


def broken_stream(key: str) -> bytes:
    error = {"type": "error", "code": "invalid_api_key", "message": f"Incorrect API key provided: {key}", "param": None}
    return f"event: error\ndata: {json.dumps(error)}\n\n".encode()
