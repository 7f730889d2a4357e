"""One user's door: what somebody else has is not there, and nobody can find out whether it is."""

import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.published_schema import DOCUMENT
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

Request = tuple[str, str, dict[str, Any] | None]

ROUTES: list[Request] = [
    ("POST", "chat", {"message": "hello"}),
    ("POST", "conversations", {}),
    ("GET", "conversations", None),
    ("POST", "tasks", {"title": "Buy milk"}),
    ("GET", "tasks", None),
    ("POST", "artifacts", {"title": "Groceries", "content_markdown": "# Milk"}),
    ("GET", "artifacts", None),
    ("POST", "context-tokens", {"grants": ["tasks:read"]}),
    ("GET", "context-tokens", None),
]
OF_ONE: list[Request] = [
    ("POST", "chat", {"message": "hello", "conversation_id": "{conversation}"}),
    ("GET", "conversations/{conversation}", None),
    ("PATCH", "conversations/{conversation}", {"title": "mine now"}),
    ("DELETE", "conversations/{conversation}", None),
    ("GET", "conversations/{conversation}/messages", None),
    ("GET", "conversations/{conversation}/turns", None),
    ("GET", "turns/{turn}", None),
    ("GET", "turns/{turn}/events", None),
    ("POST", "turns/{turn}/cancel", None),
    ("GET", "tasks/{task}", None),
    ("PATCH", "tasks/{task}", {"title": "mine now"}),
    ("POST", "tasks/{task}/complete", None),
    ("DELETE", "tasks/{task}", None),
    (
        "POST",
        "artifacts",
        {"title": "mine now", "content_markdown": "", "conversation_id": "{conversation}"},
    ),
    ("GET", "artifacts/{artifact}", None),
    ("PUT", "artifacts/{artifact}", {"content_markdown": "mine now"}),
    ("DELETE", "artifacts/{artifact}", None),
    ("GET", "artifacts/{artifact}/versions", None),
    ("GET", "artifacts/{artifact}/content", None),
    ("GET", "artifacts/{artifact}/content?version=1", None),
    ("POST", "context-tokens", {"grants": ["tasks:read"], "conversation_id": "{conversation}"}),
    ("DELETE", "context-tokens/{token}", None),
]


def named(request: Request) -> str:
    method, path, body = request
    return f"{method} {path}{' in a conversation' if body and 'conversation_id' in body else ''}"


@dataclass
class Belongings:
    """The ids of what somebody has."""

    conversation: str
    turn: str
    task: str
    artifact: str
    token: str

    @classmethod
    async def of(cls, person: ApiUser) -> "Belongings":
        answer = await person.chat('/add_task {"title": "Buy milk"}')
        artifact = await person.create("artifacts", title="Groceries", content_markdown="# Milk")
        token = await person.create("context-tokens", grants=["tasks:read"])
        task = answer["tool_calls"][0]["result"]
        return cls(answer["conversation_id"], answer["turn_id"], task["id"], artifact["id"], token["id"])

    @classmethod
    def of_nobody(cls) -> "Belongings":
        return cls(*(str(uuid4()) for _ in range(5)))

    def into(self, text: str) -> str:
        for name, value in vars(self).items():
            text = text.replace(f"{{{name}}}", value)
        return text


async def ask(asker: ApiUser, owner: str, request: Request, things: Belongings) -> httpx2.Response:
    """The request with the asker's token, on the path of the owner."""
    method, path, body = request
    at_door = ApiUser(owner, asker.token, asker.client)
    headers = {"authorization": f"Bearer {asker.token}"}
    filled = {name: things.into(value) if isinstance(value, str) else value for name, value in (body or {}).items()}
    json = None if body is None else filled
    return await asker.client.request(method, at_door.path(things.into(path)), json=json, headers=headers)


def without_id(response: httpx2.Response) -> tuple[int, dict[str, Any], str]:
    """All that an answer says, but for what differs between any two."""
    problem = response.json()
    assert problem.pop("request_id") == response.headers["x-request-id"]
    return response.status_code, problem, response.headers.get("content-type", "")


async def everything(person: ApiUser) -> list[Any]:
    listings = ["conversations", "tasks", "artifacts", "context-tokens"]
    found = [await person.list_items(listing) for listing in listings]
    return [*found, [await person.list_items(f"conversations/{one['id']}/messages") for one in found[0]]]


async def test_these_are_all_the_routes_that_are_published() -> None:
    """So that a new one cannot be forgotten here."""
    tried = {(method, re.sub(r"{\w+}", "{}", path.partition("?")[0])) for method, path, _ in ROUTES + OF_ONE}
    published = {
        (method.upper(), re.sub(r"{\w+}", "{}", path).removeprefix("/api/{}/"))
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if path.startswith("/api/")
    }

    assert tried == published


@pytest.mark.parametrize("request_", ROUTES + OF_ONE, ids=named)
async def test_on_another_users_path_nothing_tells_whether_that_user_exists(
    ada: ApiUser, bob: ApiUser, request_: Request
) -> None:
    things = await Belongings.of(bob)
    before = await everything(bob)
    existing = without_id(await ask(ada, bob.user_id, request_, things))
    absent = without_id(await ask(ada, f"nobody-{uuid4()}", request_, Belongings.of_nobody()))

    assert existing == absent
    assert (existing[0], existing[1]["code"]) == (403, "wrong-user")
    assert await everything(bob) == before


@pytest.mark.parametrize("request_", OF_ONE, ids=named)
async def test_on_ones_own_path_what_is_anothers_is_not_there(ada: ApiUser, bob: ApiUser, request_: Request) -> None:
    things = await Belongings.of(bob)
    before = await everything(bob)
    foreign = without_id(await ask(ada, ada.user_id, request_, things))
    absent = without_id(await ask(ada, ada.user_id, request_, Belongings.of_nobody()))

    assert foreign == absent
    assert (foreign[0], foreign[1]["code"]) == (404, "not-found")
    assert await everything(bob) == before
    assert await everything(ada) == [[], [], [], [], []]


@pytest.mark.parametrize("request_", ROUTES + OF_ONE, ids=named)
async def test_without_a_valid_token_every_route_is_closed(ada: ApiUser, request_: Request) -> None:
    nobody = ApiUser(ada.user_id, "not-a-token", ada.client)
    refused = await ask(nobody, ada.user_id, request_, Belongings.of_nobody())

    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_listings_hold_nothing_of_anybody_else(ada: ApiUser, bob: ApiUser) -> None:
    await Belongings.of(bob)

    assert await everything(ada) == [[], [], [], [], []]


async def test_a_cursor_of_another_user_opens_nothing_of_theirs(ada: ApiUser, bob: ApiUser) -> None:
    for number in range(3):
        await bob.create("tasks", title=f"bob {number}")
        await ada.create("tasks", title=f"ada {number}")
    cursor = (await bob.get("tasks", params={"limit": 1})).json()["next_cursor"]

    assert all(task["title"].startswith("ada") for task in await ada.list_items("tasks", cursor=cursor))


@pytest.mark.parametrize("name", ["auth0|62a1b.c_d~e-f", "ada@example.com", "urn:example:ada", "...", "a" * 128])
async def test_a_location_can_be_followed_whatever_the_user_is_called(service: Service, name: str) -> None:
    """By those who write URLs by the book: nothing in it but what may stand in a path as it is, or percent-encoded."""
    person = service.user(name)
    made = [
        await person.post("tasks", json={"title": "Buy milk"}),
        await person.post("conversations", json={}),
        await person.post("artifacts", json={"title": "Groceries", "content_markdown": "# Milk"}),
    ]
    headers = {"authorization": f"Bearer {person.token}"}
    found = [await service.client.get(one.headers["location"], headers=headers) for one in made]

    assert [one.content for one in found] == [one.content for one in made]
    assert all(re.fullmatch(r"(/([A-Za-z0-9._~-]|%[0-9A-F]{2})+)+", one.headers["location"]) for one in made)
