"""Isolation of users in OpenAI's API: ids of another user are answered like unknown ids."""

import re
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from tests.support.openai_sdk import BASE_PATH
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN = "0198f3c0a7b47c1e8d2f3a4b5c6d7e8f"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "responses", {"input": "Hello", "conversation": "conv_{conversation}"}),
    ("POST", "responses", {"input": "Hello", "conversation": {"id": "conv_{conversation}"}}),
    ("POST", "responses", {"input": "Hello", "previous_response_id": "resp_{response}"}),
    ("POST", "responses", {"input": "Hello", "conversation": "conv_{conversation}", "stream": True}),
    ("POST", "responses", {"input": "Hello", "previous_response_id": "resp_{response}", "background": True}),
    ("GET", "responses/resp_{response}", None),
    ("GET", "responses/resp_{response}?stream=true&starting_after=1", None),
    ("POST", "responses/resp_{response}/cancel", {}),
    ("GET", "responses/resp_{response}/input_items", None),
    ("GET", "conversations/conv_{conversation}", None),
    ("POST", "conversations/conv_{conversation}", {"metadata": {"title": "Taken"}}),
    ("DELETE", "conversations/conv_{conversation}", None),
    ("GET", "conversations/conv_{conversation}/items", None),
    ("GET", "conversations/conv_{conversation}/items?order=asc", None),
    ("GET", "conversations/conv_{conversation}/items?after=msg_{response}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=range(len(ROUTES)))
async def test_ids_of_another_user_are_answered_like_ids_that_do_not_exist(
    ada: ApiUser, bob: ApiUser, method: str, path: str, body: Any
) -> None:
    theirs = (await bob.post(f"{BASE_PATH}/responses", json={"input": "Hello"})).json()
    before = await _data_of(bob, theirs)
    ids = {"response": theirs["id"].removeprefix("resp_"), "conversation": theirs["conversation"]["id"][5:]}
    unknown = dict.fromkeys(ids, UNKNOWN)

    refused, absent = [
        await ada.request(method, f"{BASE_PATH}/{_filled(path, names)}", json=_filled(body, names))
        for names in (ids, unknown)
    ]

    assert refused.status_code == absent.status_code == 404
    assert refused.content == absent.content
    assert await _data_of(bob, theirs) == before
    assert await ada.list_items("conversations") == []


async def test_every_route_with_an_id_is_tested(service: Service) -> None:
    app = service.asgi._app
    assert isinstance(app, Litestar)
    templates = {
        (str(method), re.sub(r"\{\w+_id\}", "", route.path_format.partition(f"/{BASE_PATH}/")[2]))
        for route in app.routes
        if isinstance(route, HTTPRoute) and "_id}" in route.path_format.partition(f"/{BASE_PATH}/")[2]
        for method in route.methods
        if method != "OPTIONS"
    }
    tested = {(method, re.sub(r"\w+_\{\w+\}|\?.*", "", path)) for method, path, _ in ROUTES}

    assert templates
    assert tested - {("POST", "responses")} == templates


async def test_item_of_another_user_is_no_position_in_own_conversation(ada: ApiUser, bob: ApiUser) -> None:
    theirs = (await bob.post(f"{BASE_PATH}/responses", json={"input": "Hello"})).json()
    own = (await ada.post(f"{BASE_PATH}/responses", json={"input": "Hello"})).json()
    items = f"{BASE_PATH}/conversations/{own['conversation']['id']}/items"

    response = await ada.get(items, params={"after": theirs["output"][0]["id"]})

    assert response.status_code == 404


async def test_same_idempotency_key_of_two_users_starts_a_turn_for_each(ada: ApiUser, bob: ApiUser) -> None:
    headers = {"Idempotency-Key": "same"}
    first, second = [
        (await user.post(f"{BASE_PATH}/responses", json={"input": "Hello"}, headers=headers)).json()
        for user in (ada, bob)
    ]

    assert first["status"] == second["status"] == "completed"
    assert first["id"] != second["id"]


def _filled(template: Any, names: dict[str, str]) -> Any:
    if isinstance(template, str):
        return template.format(**names) if "{" in template else template
    if isinstance(template, dict):
        return {name: _filled(value, names) for name, value in template.items()}
    return template


async def _data_of(user: ApiUser, response: dict[str, Any]) -> list[Any]:
    conversation = response["conversation"]["id"]
    paths = [f"responses/{response['id']}", f"conversations/{conversation}", f"conversations/{conversation}/items"]
    return [(await user.get(f"{BASE_PATH}/{path}")).json() for path in paths]
