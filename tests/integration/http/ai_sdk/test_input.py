"""Bad input of pages with the AI SDK: it is refused with a reason or ignored, and never an internal error."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ai_sdk.chat import API, body, chunks, message, say
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=5)),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=5), values, max_size=3)),
    max_leaves=5,
)
MEMBERS = [
    *("id", "message", "messages", "trigger", "messageId", "artifact_generation", "assistant", "model", "context"),
    *("timezone", "metadata", "system", "tools"),
]


def with_part(**part: Any) -> dict[str, Any]:
    return {"id": "m1", "role": "user", "parts": [part]}


@pytest.mark.parametrize(
    "posted",
    [
        {},
        [],
        {"id": "c1"},
        {"id": "c1", "messages": []},
        {"id": "c1", "messages": None},
        {"id": "c1", "messages": "Hello"},
        {"id": "c1", "messages": [1]},
        {"id": "c1", "message": "Hello"},
        {"id": "c1", "message": None},
        {"id": "c1", "message": {"id": "m1", "role": "user", "content": "of ai 4"}},
        {"id": "c1", "messages": [{"id": "m1", "role": "assistant", "parts": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [message("Hello")]},
        *(body(chat, message("Hello")) for chat in ("", "a/b", ".", "..", "turn", "a\n", "a" * 256)),
        *(body("c1", message("Hello", id)) for id in ("a\n", "a" * 256)),
        *(body("c1", message(text)) for text in ("", " \n", "a" * 32_001, "\x00")),
        body("c1", {"id": "m1", "role": "user", "parts": []}),
        body("c1", with_part(type="text", text=1)),
        body("c1", with_part(type="file", url="data:,", mediaType="text/plain")),
        body("c1", with_part(text="without a type")),
        body("c1", message("Hello"), assistant="unknown"),
        body("c1", message("Hello"), model="unknown"),
        body("c1", message("Hello"), timezone="Nowhere/At_All"),
        body("c1", message("Hello"), context={"text": "x" * 9000}),
        body("c1", message("Hello"), ignored={"text": "\x00"}),
    ],
)
async def test_invalid_message_is_refused_and_starts_no_turn(ada: ApiUser, posted: Any) -> None:
    refused = await ada.post(API, json=posted)

    assert refused.status_code == 422, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "invalid"
    assert await ada.list_items("conversations") == []


@pytest.mark.parametrize(
    ("posted", "path"),
    [
        (body("c1", message("Hello"), {"role": "user"}), "$.messages[1]"),
        (body("c1", {"role": "user", "parts": [{"type": 1}]}), "$.messages[0].parts[0].type"),
        ({"id": "c1", "messages": ["Hello"]}, "$.messages[0]"),
        ({"id": "c1", "message": {"parts": 1}}, "$.message.parts"),
        (body("c1", message("")), "$.message"),
        ({"message": message("Hello")}, "$"),
    ],
)
async def test_refusal_names_the_place_in_the_body(ada: ApiUser, posted: Any, path: str) -> None:
    refused = await ada.post(API, json=posted)

    assert [error["path"] for error in refused.json()["errors"]] == [path]


async def test_file_is_refused_with_a_sentence(ada: ApiUser) -> None:
    parts = [{"type": "text", "text": "Look"}, {"type": "file", "url": "data:,", "mediaType": "image/png"}]
    refused = await ada.post(API, json=body("c1", {"id": "m1", "role": "user", "parts": parts}))

    assert refused.json()["detail"] == "Only text can be sent; this message has a part of type `file`."


async def test_options_that_are_something_else_in_other_software_are_ignored(ada: ApiUser) -> None:
    posted = body(
        "c1",
        message("Hello"),
        assistant={"id": 1},
        model=["gpt"],
        context="text",
        timezone=2,
        metadata={"nested": {"a": 1}},
        artifact_generation="yes",
        trigger=["?"],
        messageId=7,
    )
    streamed = chunks(await ada.post(API, json=posted, params={"a": ["1", "2"]}))
    turn = (await ada.get(f"turns/{streamed[0]['messageId']}")).json()

    assert (turn["status"], turn["assistant"], turn["metadata"]) == ("completed", "default", {})


async def test_metadata_of_the_body_is_stored_with_the_turn(ada: ApiUser) -> None:
    streamed = await say(ada, "c1", "Hello", metadata={"page": "home"}, assistant="default", timezone="Europe/Berlin")

    assert (await ada.get(f"turns/{streamed[0]['messageId']}")).json()["metadata"] == {"page": "home"}


async def test_assistant_of_the_header_is_overridden_by_the_body(ada: ApiUser) -> None:
    headers = {"latchkey-assistant": "unknown"}
    refused = await ada.post(API, json=body("c1", message("Hello")), headers=headers)
    chosen = await ada.post(API, json=body("c1", message("Hello"), assistant="default"), headers=headers)

    assert (refused.status_code, chosen.status_code) == (422, 200)


async def test_long_ids_of_chats_and_messages_have_an_idempotency_key(
    model_service: Service, model: ModelServer
) -> None:
    ada = model_service.user()
    model.script += [says("One.")]
    first, again = [await say(ada, "c" * 255, "Hello", "é" * 255) for _ in range(2)]

    assert again == first


async def test_body_of_eight_mebibytes_is_read_and_a_larger_one_refused(ada: ApiUser) -> None:
    earlier = {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "x" * (8 * 1024 * 1024 - 1000)}]}
    whole = await ada.post(API, json=body("c1", earlier, message("Hello")))
    larger = await ada.post(API, json=body("c1", earlier, earlier, message("Hello")))

    assert chunks(whole)
    assert (larger.status_code, larger.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"before": "x"}])
async def test_invalid_page_of_a_chat_is_refused(ada: ApiUser, params: dict[str, str]) -> None:
    refused = await ada.get(f"{API}/c1", params=params)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


async def test_unknown_query_parameters_are_ignored(ada: ApiUser) -> None:
    params = {"_": "1", "limit": "1"}
    assert (await ada.get(f"{API}/c1", params=params)).status_code == 200
    assert (await ada.get(f"{API}/c1/stream", params=params)).status_code == 204
    assert (await ada.post(f"{API}/c1/stop", params=params)).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", ""])
async def test_stop_with_any_body_cancels_the_turn(ada: ApiUser, content_type: str) -> None:
    stopped = await ada.post(f"{API}/c1/stop", content=b"{not json", headers={"content-type": content_type})

    assert (stopped.status_code, stopped.json()) == (200, {"success": True})


async def test_names_of_chats_are_never_an_internal_error(ada: ApiUser) -> None:
    for chat in ("%00", "a%00b", "%FF", "%ED%A0%80", "a" * 5000, "%0A", "turn", "%F0%9F%A5%9B"):
        for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/stop")):
            assert (await ada.request(method, f"{API}/{chat}{path}")).status_code in {200, 204, 404}, chat


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
async def test_any_json_is_answered_without_internal_error(ada: ApiUser, data: st.DataObject) -> None:
    triggers = st.sampled_from(["submit-message", "regenerate-message"])
    changed = {"trigger": data.draw(triggers), **data.draw(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3))}
    posted = {**body("c1", message("Hello", "m1")), **changed}
    response = await ada.post(API, json=posted)

    assert response.status_code in {200, 422}, response.text
