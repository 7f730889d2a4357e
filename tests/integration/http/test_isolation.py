"""Isolation of users over HTTP: another user's data is absent, and its existence cannot be found out."""

import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.operations import LISTINGS, OPERATIONS, Operation, create_one_of_each, each_operation
from tests.support.published_schema import DOCUMENT
from tests.support.schema_examples import example
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Case:
    """A request that names an entity by id: in its path, and in the body member `body_id` if there is one."""

    operation: Operation
    body_id: str | None = None
    query: tuple[str, Any] | None = None

    def __str__(self) -> str:
        extra = self.body_id or (self.query and self.query[0])
        return f"{self.operation.name}({extra})" if extra else self.operation.name


def cases_of(operation: Operation) -> list[Case]:
    """One case per id that the operation takes, and one per integer query parameter of an operation on an entity."""
    cases = [Case(operation, body_id=name) for name in operation.body_properties if is_id(name)]
    if operation.parameters("path"):
        integers = {
            name: schema for name, schema in operation.parameters("query").items() if schema.get("type") == "integer"
        }
        cases += [
            Case(operation),
            *(Case(operation, query=(name, example(schema, DOCUMENT))) for name, schema in integers.items()),
        ]
    return cases


def is_id(name: str) -> bool:
    """Whether the member is the id of an entity. A name that the client chooses is none."""
    return (name.endswith("_id") and not name.startswith("client_")) or name == "replaces"


ENTITY_CASES = [case for operation in OPERATIONS.values() for case in cases_of(operation)]
CASES = [*ENTITY_CASES, *(Case(operation) for operation in OPERATIONS.values() if not operation.parameters("path"))]


async def send(sender: ApiUser, owner_id: str, case: Case, ids: dict[str, str]) -> httpx2.Response:
    """Send the request with the sender's token to the path of the owner. Ids that `ids` lacks are new."""
    operation = case.operation
    body = operation.body
    if body is not None and case.body_id:
        body = {**body, case.body_id: ids.get(case.body_id, str(uuid4()))}
    path = ApiUser(owner_id, sender.token, sender.client).path(operation.path_with(ids))
    headers = {"authorization": f"Bearer {sender.token}", **operation.headers}
    params = dict([case.query]) if case.query else None
    return await sender.client.request(operation.method, path, json=body, headers=headers, params=params)


def without_request_id(response: httpx2.Response) -> tuple[int, dict[str, Any], str]:
    """Status, body and content type, without the request id, which differs between any two responses."""
    problem = response.json()
    assert problem.pop("request_id") == response.headers["x-request-id"]
    return response.status_code, problem, response.headers.get("content-type", "")


async def data_of(user: ApiUser) -> dict[str, Any]:
    """All that the user's listings show, and the messages of each conversation."""
    listings = {listing: await user.list_items(listing) for listing in LISTINGS}
    messages = [
        await user.list_items(f"conversations/{conversation['id']}/messages")
        for conversation in listings["conversations"]
    ]
    return {**listings, "messages": messages}


def creates_readable_entity(operation: Operation) -> bool:
    """Whether it adds to a collection whose entities can be read one by one."""
    entity = re.compile(re.escape(operation.path) + r"/{\w+}")
    readable = [
        operation for operation in OPERATIONS.values() if operation.method == "GET" and entity.fullmatch(operation.path)
    ]
    return operation.method == "POST" and bool(readable)


NO_DATA: dict[str, Any] = {**{listing: [] for listing in LISTINGS}, "messages": []}


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_isolation_path_of_another_user_answers_like_path_of_unknown_user(
    ada: ApiUser, bob: ApiUser, case: Case
) -> None:
    ids = await create_one_of_each(bob)
    before = await data_of(bob)
    existing = without_request_id(await send(ada, bob.user_id, case, ids))
    absent = without_request_id(await send(ada, f"nobody-{uuid4()}", case, {}))

    assert existing == absent
    assert (existing[0], existing[1]["code"]) == (403, "wrong-user")
    assert await data_of(bob) == before


@pytest.mark.parametrize("case", ENTITY_CASES, ids=str)
async def test_isolation_entity_of_another_user_answers_like_absent_entity(
    ada: ApiUser, bob: ApiUser, case: Case
) -> None:
    """On the caller's own path."""
    ids = await create_one_of_each(bob)
    before = await data_of(bob)
    foreign = without_request_id(await send(ada, ada.user_id, case, ids))
    absent = without_request_id(await send(ada, ada.user_id, case, {}))

    assert foreign == absent
    assert (foreign[0], foreign[1]["code"]) == (404, "not-found")
    assert await data_of(bob) == before
    assert await data_of(ada) == NO_DATA


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_authentication_invalid_token_is_unauthenticated_on_every_operation(ada: ApiUser, case: Case) -> None:
    sender = ApiUser(ada.user_id, "not-a-token", ada.client)
    refused = await send(sender, ada.user_id, case, {})

    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_isolation_listings_show_no_data_of_another_user(ada: ApiUser, bob: ApiUser) -> None:
    await create_one_of_each(bob)

    assert await data_of(ada) == NO_DATA


async def test_isolation_cursor_of_another_user_shows_none_of_their_items(ada: ApiUser, bob: ApiUser) -> None:
    for number in range(3):
        await bob.create("tasks", title=f"bob {number}")
        await ada.create("tasks", title=f"ada {number}")
    cursor = (await bob.get("tasks", params={"limit": 1})).json()["next_cursor"]

    assert all(task["title"].startswith("ada") for task in await ada.list_items("tasks", cursor=cursor))


@each_operation()
async def test_path_me_is_the_path_of_the_caller(ada: ApiUser, operation: Operation) -> None:
    by_id, by_me = [
        await send(ada, path_user, Case(operation), await create_one_of_each(ada)) for path_user in (ada.user_id, "me")
    ]

    assert (by_me.status_code, by_me.headers.keys()) == (by_id.status_code, by_id.headers.keys())
    # The turn waits for no decision.
    assert by_me.is_success
    if location := by_me.headers.get("location"):
        assert location.startswith(f"/api/{ada.user_id}/")


@pytest.mark.parametrize("case", ENTITY_CASES, ids=str)
async def test_path_me_shows_no_data_of_a_user_who_is_called_me(service: Service, ada: ApiUser, case: Case) -> None:
    user = service.user("me")
    ids = await create_one_of_each(user)
    before = await data_of(user)
    foreign = without_request_id(await send(ada, "me", case, ids))
    absent = without_request_id(await send(ada, ada.user_id, case, {}))

    assert foreign == absent
    assert (foreign[0], foreign[1]["code"]) == (404, "not-found")
    assert await data_of(user) == before
    assert await data_of(ada) == NO_DATA


@each_operation(creates_readable_entity)
@pytest.mark.parametrize("name", ["auth0|62a1b.c_d~e-f", "ada+bikes@example.com", "urn:example:ada", "...", "a" * 128])
async def test_location_header_of_created_entity_is_percent_encoded_and_reachable(
    service: Service, name: str, operation: Operation
) -> None:
    """RFC 3986: only characters that may stand in a path, or percent-encoded bytes."""
    user = service.user(name)
    created = await user.post(operation.path, json=operation.body)
    location = created.headers["location"]
    read = await service.client.get(location, headers={"authorization": f"Bearer {user.token}"})

    assert read.content == created.content
    assert re.fullmatch(r"(/([A-Za-z0-9._~-]|%[0-9A-F]{2})+)+", location)
