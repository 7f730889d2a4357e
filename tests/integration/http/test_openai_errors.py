"""Refusals of OpenAI's API: their shape on every route, and input that is refused."""

from asyncio import Event
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from latchkey.infrastructure.database.urls import parse
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.support.openai_sdk import BASE_PATH
from tests.support.service import ApiUser, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

RESPONSES, CONVERSATIONS = f"{BASE_PATH}/responses", f"{BASE_PATH}/conversations"
UNKNOWN = "0198f3c0a7b47c1e8d2f3a4b5c6d7e8f"
ROUTES = [
    ("POST", "responses"),
    ("GET", f"responses/resp_{UNKNOWN}"),
    ("POST", f"responses/resp_{UNKNOWN}/cancel"),
    ("GET", f"responses/resp_{UNKNOWN}/input_items"),
    ("POST", "conversations"),
    ("GET", f"conversations/conv_{UNKNOWN}"),
    ("POST", f"conversations/conv_{UNKNOWN}"),
    ("DELETE", f"conversations/conv_{UNKNOWN}"),
    ("GET", f"conversations/conv_{UNKNOWN}/items"),
    ("GET", "models"),
    ("GET", "models/none"),
]
TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


def check_error(response: httpx2.Response, status: int, code: str) -> None:
    """Check that the SDKs read this error, and repeat the request only if a retry can succeed."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert body["error"] == {
        "message": body["error"]["message"],
        "type": TYPES.get(status, "invalid_request_error"),
        "param": None,
        "code": code,
    }
    assert response.headers.get("x-should-retry") == (None if status in {429, 503} else "false")
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_refuses_invalid_token_in_openai_shape(ada: ApiUser, method: str, path: str) -> None:
    headers = {"authorization": "Bearer none"}
    response = await ada.client.request(method, ada.path(f"{BASE_PATH}/{path}"), headers=headers, json={})

    check_error(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if UNKNOWN in route[1]])
@pytest.mark.parametrize("id", [UNKNOWN, UNKNOWN.upper(), UNKNOWN[1:], f"{UNKNOWN}0", "", "%00", "x" * 5000])
async def test_unknown_and_malformed_ids_are_404_in_openai_shape(ada: ApiUser, method: str, path: str, id: str) -> None:
    if not id and path.count("/") == 1:
        path = path.replace(UNKNOWN, "-")  # `resp_` alone is another id; an empty segment is another path
    response = await ada.request(method, f"{BASE_PATH}/{path.replace(UNKNOWN, id)}", json={})

    check_error(response, 404, "not-found")


async def test_unknown_path_and_method_are_refused_in_openai_shape(ada: ApiUser) -> None:
    for path in ("", "/", "/chat/completions", "/responses/resp_1/none", "/embeddings"):
        check_error(await ada.post(f"{BASE_PATH}{path}", json={}), 404, "not-found")
    refused = await ada.delete(f"{RESPONSES}/resp_{UNKNOWN}")
    check_error(refused, 405, "invalid")
    assert "GET" in refused.headers["allow"]
    assert (await ada.post("openai/v10/none", json={})).json()["type"].startswith("urn:latchkey:problem:")


async def test_path_of_another_user_is_403_in_openai_shape(ada: ApiUser, bob: ApiUser) -> None:
    response = await ApiUser(bob.user_id, ada.token, ada.client).get(f"{BASE_PATH}/models")

    check_error(response, 403, "wrong-user")


async def test_body_too_large_or_of_another_type_is_refused_in_openai_shape(ada: ApiUser) -> None:
    large = b'{"input": "' + b"x" * 8 * 1024 * 1024 + b'"}'
    json_type, text_type = {"content-type": "application/json"}, {"content-type": "text/plain"}

    check_error(await ada.post(RESPONSES, content=large, headers=json_type), 413, "too-large")
    check_error(await ada.post(RESPONSES, content=b"{}", headers=text_type), 415, "unsupported-media-type")
    check_error(await ada.post(RESPONSES, content=b"", headers=json_type), 400, "invalid")
    for body in (b"{", b'{"input": "\xff"}', b'{"input": "a", "input": "b"}'):
        check_error(await ada.post(RESPONSES, content=body, headers=json_type), 400, "invalid")


TEXT = {"type": "input_text", "text": "Hello"}
INVALID_BODIES: list[Any] = [
    {},
    {"input": None},
    {"input": 7},
    {"input": {}},
    {"input": ""},
    {"input": " \n"},
    {"input": "x" * 32_001},
    {"input": "a\0b"},
    {"input": []},
    {"input": [7]},
    {"input": ["Hello"]},
    {"input": [{}]},
    {"input": [{"role": "user"}]},
    {"input": [{"role": "user", "content": 7}]},
    {"input": [{"role": "user", "content": []}]},
    {"input": [{"role": "user", "content": [7]}]},
    {"input": [{"role": "user", "content": [{"type": 7}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": None}]}]},
    {"input": [{"role": "user", "content": [TEXT, {"type": "input_image", "image_url": "data:"}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
    {"input": [{"role": "user", "content": [TEXT], "type": "none"}]},
    {"input": [{"role": "assistant", "content": "Hello"}]},
    {"input": [{"role": "system", "content": "Hello"}]},
    {"input": [{"type": "function_call_output", "call_id": "1", "output": "1"}]},
    {"input": "Hello", "conversation": 7},
    {"input": "Hello", "conversation": {}},
    {"input": "Hello", "conversation": {"id": 7}},
    {"input": "Hello", "previous_response_id": {}},
    {"input": "Hello", "conversation": f"conv_{UNKNOWN}", "previous_response_id": f"resp_{UNKNOWN}"},
    {"input": "Hello", "stream": "yes"},
    {"input": "Hello", "background": 1},
    {"input": "Hello", "model": 7},
    {"input": "Hello", "metadata": {"page": 7}},
    {"input": "Hello", "metadata": {"page": "x" * 513}},
    {"input": "Hello", "metadata": {str(number): "" for number in range(17)}},
    [],
    "Hello",
]
INVALID_CONVERSATIONS: list[Any] = [
    {"metadata": 7},
    {"metadata": {"title": 7}},
    {"metadata": {"title": "x" * 201}},
    {"metadata": {"title": "a\0b"}},
    {"items": [{"role": "user", "content": "Hello"}]},
    {"items": {}},
    [],
]


async def test_invalid_body_is_422_in_openai_shape_and_starts_no_turn(ada: ApiUser) -> None:
    for body in INVALID_BODIES:
        check_error(await ada.post(RESPONSES, json=body), 422, "invalid")

    assert await ada.list_items("conversations") == []


async def test_part_that_is_no_text_is_named_in_plain_text(ada: ApiUser) -> None:
    image = {"type": "input_image", "image_url": "https://example.org/a.png"}
    response = await ada.post(RESPONSES, json={"input": [{"role": "user", "content": [TEXT, image]}]})

    assert response.json()["error"]["message"] == (
        "$.input[0].content[1]: Only text can be sent; this message has a part of type `input_image`"
    )


async def test_invalid_conversation_is_422_in_openai_shape(ada: ApiUser) -> None:
    conversation = (await ada.post(CONVERSATIONS, json={})).json()

    for body in INVALID_CONVERSATIONS:
        check_error(await ada.post(CONVERSATIONS, json=body), 422, "invalid")
        check_error(await ada.post(f"{CONVERSATIONS}/{conversation['id']}", json=body), 422, "invalid")
    assert len(await ada.list_items("conversations")) == 1


async def test_unknown_fields_and_query_parameters_are_ignored(ada: ApiUser) -> None:
    body = {"input": "Hello", "tools": [{"type": "none"}], "store": False, "anything": {"at": ["all", None, 1.5]}}
    response = await ada.post(RESPONSES, json=body, params={"include[]": ["a", "b"], "anything": "7"})

    assert response.json()["status"] == "completed"


@pytest.mark.parametrize(
    "query",
    [
        "stream=7",
        "starting_after=-2",
        "starting_after=1e1",
        "starting_after=x",
        f"starting_after={2**63}",
        "stream=null",
    ],
)
async def test_invalid_query_of_response_is_422_in_openai_shape(ada: ApiUser, query: str) -> None:
    id = (await ada.post(RESPONSES, json={"input": "Hello"})).json()["id"]

    check_error(await ada.get(f"{RESPONSES}/{id}?{query}"), 422, "invalid")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=none", "order=asc&order=desc"])
async def test_invalid_query_of_items_is_422_in_openai_shape(ada: ApiUser, query: str) -> None:
    id = (await ada.post(CONVERSATIONS, json={})).json()["id"]

    check_error(await ada.get(f"{CONVERSATIONS}/{id}/items?{query}"), 422, "invalid")


async def test_too_many_turns_is_429_that_may_be_repeated(
    shared_database_url: str, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Wait").held(gate)]
    limited = settings_for(shared_database_url, LATCHKEY_TURNS_PER_USER="1", **model_variables(model))
    async with run_service(limited) as service:
        user = service.user()
        await user.post(RESPONSES, json={"input": "Hello", "background": True})
        await model.wait_for_requests()

        refused = await user.post(RESPONSES, json={"input": "Hello"})
        gate.set()

    check_error(refused, 429, "too-many-turns")
    assert int(refused.headers["retry-after"]) > 0


async def test_service_without_agent_is_503_that_may_be_repeated(shared_database_url: str) -> None:
    async with run_service(settings_for(shared_database_url, LATCHKEY_AGENT="")) as service:
        refused = await service.user().post(RESPONSES, json={"input": "Hello"})

    check_error(refused, 503, "agent-not-configured")


async def test_foreign_host_and_origin_are_refused_in_openai_shape(ada: ApiUser) -> None:
    check_error(await ada.get(f"{BASE_PATH}/models", headers={"host": "example.org"}), 421, "forbidden")
    check_error(await ada.get(f"{BASE_PATH}/models", headers={"origin": "https://example.org"}), 403, "forbidden")


async def test_cors_exposes_whether_to_retry_a_request(ada: ApiUser) -> None:
    response = await ada.get(f"{BASE_PATH}/models/none", headers={"origin": "http://localhost:5173"})

    assert "x-should-retry" in response.headers["access-control-expose-headers"]


MEMBERS = st.sampled_from(["type", "role", "content", "text", "id", "user", "message", "input_text", "title"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9) | MEMBERS, values, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.sampled_from(["input", "conversation", "previous_response_id", "model", "stream", "background", "metadata"]),
    JSON_VALUES,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
async def test_any_json_body_is_answered_without_internal_error(ada: ApiUser, body: dict[str, Any]) -> None:
    response = await ada.post(RESPONSES, json=body | {"input": body.get("input", 7)})

    assert response.status_code in {200, 404, 409, 422}, response.text
    if response.status_code == 422:
        check_error(response, 422, "invalid")


@pytest.mark.parametrize("value", ["none", "\u00e9", "x" * 9000, "latchkey"], ids=range(4))
async def test_unknown_assistant_in_header_is_422_in_openai_shape(ada: ApiUser, value: str) -> None:
    headers = {"Latchkey-Assistant": value.encode("latin-1")}
    empty = (await ada.post(CONVERSATIONS, json={})).json()["id"]
    for conversation in (None, empty):
        body = {"input": "Hello", "conversation": conversation}
        check_error(await ada.post(RESPONSES, json=body, headers=headers), 422, "invalid")


@pytest.mark.parametrize("key", ["", '"', "a b", "x" * 256], ids=range(4))
async def test_invalid_idempotency_key_is_refused_in_openai_shape(ada: ApiUser, key: str) -> None:
    check_error(await ada.post(RESPONSES, json={"input": "Hello"}, headers={"Idempotency-Key": key}), 400, "invalid")


async def test_idempotency_key_of_chat_is_refused_for_another_protocol(ada: ApiUser) -> None:
    headers = {"Idempotency-Key": "key-3"}
    await ada.post("chat", json={"message": "Hello"}, headers=headers)

    check_error(await ada.post(RESPONSES, json={"input": "Hello"}, headers=headers), 422, "idempotency-mismatch")


async def test_internal_error_is_500_in_openai_shape_without_internals(database_url: str) -> None:
    async with run_service(settings_for(database_url)) as service:
        url, connect_args = parse(database_url)
        engine = create_async_engine(url, connect_args=connect_args)
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE conversations RENAME COLUMN title TO name"))
        await engine.dispose()

        failed = await service.user().post(CONVERSATIONS, json={})

    check_error(failed, 500, "internal")
    assert failed.json()["error"]["message"] == "Internal error: report it with the request id."
