"""A running service, and users whose clients connect to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.e2e.service_process import BASE_SETTINGS, LATCHKEY, Environment, Replica, issue_token, running_service
from tests.interop.client import Endpoint, HttpEndpoint, StdioEndpoint

PLAN = {"title": "A plan — 計画", "content_markdown": "# Plan\n\n«Milk», 牛乳, 🥛, עברית: \\ \" ' \t.\n"}


@dataclass(frozen=True)
class InteropUser:
    """A user with a token, and its view of the REST API."""

    service: "InteropService"
    user_id: str
    token: str

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        response = self.service.replica.request(method, f"/api/{self.user_id}/{path}", self.token, **options)
        assert response.is_success, response.text
        return response

    def create_context_token(self, *grants: str) -> str:
        return str(self.request("POST", "context-tokens", json={"grants": grants}).json()["token"])

    def create_resources(self) -> list[str]:
        """Create an artifact and a conversation. Returns their resource URIs, in the order of the list."""
        artifact = self.request("POST", "artifacts", json=PLAN).json()["id"]
        conversation = self.request("POST", "conversations", json={"title": "Breakfast"}).json()["id"]
        return [f"latchkey://artifacts/{artifact}", f"latchkey://conversations/{conversation}"]

    @property
    def tasks(self) -> list[tuple[str, str, int]]:
        """Title, status and version of each task."""
        tasks = self.request("GET", "tasks").json()["items"]
        return [(task["title"], task["status"], task["version"]) for task in tasks]


@dataclass(frozen=True)
class InteropService:
    replica: Replica
    home: Path
    environment: Environment

    def new_user(self) -> InteropUser:
        user_id = f"ada-{uuid4().hex[:8]}"
        return InteropUser(self, user_id, issue_token(user_id, self.home, self.environment))

    def endpoint(self, transport: str, bearer: str) -> Endpoint:
        if transport == "http":
            return HttpEndpoint(f"{self.replica.url}/mcp", bearer)
        database = self.environment["LATCHKEY_DATABASE_URL"]
        variables = {"LATCHKEY_DATABASE_URL": database, "LATCHKEY_CONTEXT_TOKEN": bearer}
        return StdioEndpoint(str(LATCHKEY), ["mcp"], variables)


@contextmanager
def interop_service(home: Path, **variables: str) -> Iterator[InteropService]:
    environment = {**BASE_SETTINGS, **variables, "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{home / 'latchkey.db'}"}
    with running_service("--migrate", home=home, environment=environment) as replica:
        yield InteropService(replica, home, environment)
