"""A running service, and the people whose clients come to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from latchkey.domain.credentials import Grant
from tests.e2e.service_process import BASE_SETTINGS, LATCHKEY, Environment, Replica, issue_token, running_service
from tests.interop.guest import Door, HttpDoor, StdioDoor

ALL_GRANTS = [grant.value for grant in Grant]
PLAN = {"title": "A plan — 計画", "content_markdown": "# Plan\n\n«Milk», 牛乳, 🥛, עברית: \\ \" ' \t.\n"}


@dataclass(frozen=True)
class Person:
    """Somebody with a token, and what the service says over REST about what is theirs."""

    place: "Place"
    user_id: str
    token: str

    def ask(self, method: str, below: str, **given: Any) -> httpx2.Response:
        answer = self.place.replica.request(method, f"/api/{self.user_id}/{below}", self.token, **given)
        assert answer.is_success, answer.text
        return answer

    def mint(self, *grants: str) -> str:
        """A context token."""
        return str(self.ask("POST", "context-tokens", json={"grants": grants}).json()["token"])

    def shelve(self) -> list[str]:
        """Make a document and a conversation. Answers their addresses as resources, in the order of their listing."""
        artifact = self.ask("POST", "artifacts", json=PLAN).json()["id"]
        conversation = self.ask("POST", "conversations", json={"title": "Breakfast"}).json()["id"]
        return [f"latchkey://artifacts/{artifact}", f"latchkey://conversations/{conversation}"]

    @property
    def tasks(self) -> list[tuple[str, str, int]]:
        """Title, status and version of each."""
        listed = self.ask("GET", "tasks").json()["items"]
        return [(task["title"], task["status"], task["version"]) for task in listed]


@dataclass(frozen=True)
class Place:
    replica: Replica
    home: Path
    environment: Environment

    def person(self) -> Person:
        """Somebody new."""
        user_id = f"ada-{uuid4().hex[:8]}"
        return Person(self, user_id, issue_token(user_id, self.home, self.environment))

    def door(self, transport: str, bearer: str) -> Door:
        if transport == "http":
            return HttpDoor(f"{self.replica.url}/mcp", bearer)
        database = self.environment["LATCHKEY_DATABASE_URL"]
        told = {"LATCHKEY_DATABASE_URL": database, "LATCHKEY_CONTEXT_TOKEN": bearer}
        return StdioDoor(str(LATCHKEY), ["mcp"], told)


@contextmanager
def a_place(home: Path) -> Iterator[Place]:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{home / 'latchkey.db'}"}
    with running_service("--migrate", home=home, environment=environment) as replica:
        yield Place(replica, home, environment)
