"""Bad input of AG-UI clients: it is refused with a reason or ignored, and never an internal error."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.http.ag_ui.runs import API, events_of, run_input, user_message
from tests.support.service import ApiUser

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=5)),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=5), values, max_size=3)),
    max_leaves=5,
)
MEMBERS = ["threadId", "runId", "messages", "protocolVersion", "forwardedProps", "state", "tools", "context", "resume"]
OPTIONS = ["assistant", "model", "context", "timezone", "metadata", "artifact_generation"]
PARAMS = ["runId", "threadId", "limit", "before", "offset"]
HI = user_message("Hi")
NO_MESSAGES: list[Any] = [1, None, "Hi", [], {}, {"role": 1}, {"content": "Hi"}]
NO_TEXTS: list[Any] = [None, "", " \n", "a" * 32_001, "\x00", 1, {}, [], [1]]
UNFAILING = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize(
    "posted",
    [
        [],
        {},
        {"threadId": "t1", "messages": [HI]},
        {"runId": "r1", "messages": [HI]},
        *(run_input(thread, HI) for thread in ("", "a\n", "\x00", "a" * 256)),
        *(run_input("t1", HI, run_id=run) for run in ("a\n", "\x00", "a" * 256)),
        run_input("t1", messages="Hi"),
        *(run_input("t1", message) for message in NO_MESSAGES),
        *(run_input("t1", HI | {"id": id}) for id in (1, "", "a\n", "a" * 256)),
        *(run_input("t1", HI | {"content": text}) for text in NO_TEXTS),
        run_input("t1", HI | {"content": [{"text": "Hi"}]}),
        run_input("t1", HI | {"content": [{"type": "text", "text": 1}]}),
        run_input("t1", HI | {"content": [{"type": "text", "text": "See"}, {"type": "image", "source": {}}]}),
        run_input("t1", HI, forwardedProps={"assistant": "unknown"}),
        run_input("t1", HI, forwardedProps={"model": "unknown"}),
        run_input("t1", HI, forwardedProps={"timezone": "Nowhere/At_All"}),
        run_input("t1", HI, forwardedProps={"context": {"text": "x" * 9000}}),
        run_input("t1", HI, state={"text": "\x00"}),
    ],
)
async def test_invalid_run_is_refused_and_starts_no_turn(ada: ApiUser, posted: Any) -> None:
    refused = await ada.post(API, json=posted)

    assert refused.status_code == 422, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "invalid"
    assert await ada.list_items("conversations") == []


async def test_part_that_is_not_text_is_refused_with_a_sentence_and_its_path(ada: ApiUser) -> None:
    parts = [{"type": "text", "text": "Look"}, {"type": "image", "source": {"type": "url", "value": "data:,"}}]
    refused = (await ada.post(API, json=run_input("t1", {}, user_message(parts)))).json()

    assert refused["detail"] == 'Only text can be sent; this message has a part of type "image".'
    assert refused["errors"][0]["path"] == "$.messages[1].content"


async def test_error_names_the_path_in_the_body(ada: ApiUser) -> None:
    refused = (await ada.post(API, json=run_input("t1", {}, HI | {"id": 7}))).json()

    assert refused["errors"][0]["path"] == "$.messages[1].id"


async def test_options_that_are_something_else_in_other_software_are_ignored(ada: ApiUser) -> None:
    other = {"assistant": {"id": 1}, "model": ["gpt"], "context": "text", "timezone": 2, "artifact_generation": "yes"}
    events = events_of(
        await ada.post(API, json=run_input("t1", HI, forwardedProps={**other, "metadata": {"a": {}}}), params={"x": 1})
    )
    turn = (await ada.get(f"turns/{events[0]['metadata']['turnId']}")).json()

    assert (turn["status"], turn["assistant"], turn["metadata"]) == ("completed", "default", {})


async def test_long_ids_are_accepted(ada: ApiUser) -> None:
    body = run_input("é" * 255, user_message("Hi", "\U0001f95b" * 255), run_id="\U0001f95b" * 255)
    first, again = [events_of(await ada.post(API, json=body)) for _ in range(2)]

    assert first == again


async def test_body_of_eight_mebibytes_is_read_and_a_larger_one_refused(ada: ApiUser) -> None:
    earlier = {"id": "a", "role": "assistant", "content": "x" * (8 * 1024 * 1024 - 1000)}
    whole = await ada.post(API, json=run_input("t1", earlier, HI))
    larger = await ada.post(API, json=run_input("t1", earlier, earlier, HI))

    assert events_of(whole)
    assert (larger.status_code, larger.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    "params", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"before": "x"}, {"threadId": "a\x00"}, {}]
)
async def test_invalid_query_is_refused(ada: ApiUser, params: dict[str, str]) -> None:
    refused = await ada.get(API, params={"threadId": "t1", **params} if params else {})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


async def test_names_of_threads_are_never_an_internal_error(ada: ApiUser) -> None:
    for thread in ("%00", "a%00b", "%FF", "%ED%A0%80", "a" * 5000, "%0A", "turn", "%F0%9F%A5%9B"):
        assert (await ada.get(f"{API}/{thread}")).status_code in {200, 404}, thread


@UNFAILING
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3), st.dictionaries(st.sampled_from(OPTIONS), JSON))
async def test_any_json_is_answered_without_internal_error(
    ada: ApiUser, members: dict[str, Any], options: dict[str, Any]
) -> None:
    response = await ada.post(API, json={**run_input("t1", HI), "forwardedProps": options, **members})

    assert response.status_code in {200, 422}, response.text


@UNFAILING
@given(
    st.dictionaries(st.sampled_from(PARAMS), st.text(max_size=5)), st.text(st.characters(codec="latin-1"), max_size=5)
)
async def test_any_query_and_last_event_id_are_answered_without_internal_error(
    ada: ApiUser, params: dict[str, str], last_event_id: str
) -> None:
    headers = {"last-event-id": last_event_id.encode("latin-1").replace(b"\r", b"").replace(b"\n", b"")}
    response = await ada.get(API, params=params, headers=headers)

    assert response.status_code in {200, 404, 422}, response.text
