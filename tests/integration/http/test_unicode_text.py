"""Unicode text is returned unchanged, byte for byte, on every interface."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.answer_text import answer_text
from tests.support.event_stream import stream_chat
from tests.support.operations import Operation, create_one_of_each, each_operation
from tests.support.published_schema import DOCUMENT
from tests.support.schema_examples import resolve
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = {
    "astral": "Milk 🥛 for 👩‍👩‍👧‍👦 and 🏴󠁧󠁢󠁷󠁬󠁳󠁿 \U0001d518 𒐫",
    "combining": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "two encodings of one letter": "é e\u0301 ﬁ \uff21",
    "right to left": "\u05e7\u05e0\u05d4 חלב \u202e\u05e9\u05dc\u05d5\u05dd\u202c اشتر الحليب",
    "scripts": "牛乳を買う · 우유 사기 · ซื้อนม · दूध खरीदें · купить молоко",
    "separators": "a\u2028b\u2029c\x85d\ve\ff\r\ng\th",
    "edges of Unicode": "\x01\x7f\x80\ud7ff\ue000\ufffd\ufffe\uffff\U00010000\U0010ffff",
    "SQL and format syntax": "'; DROP TABLE tasks; -- %s {} \\ \" $1 :u",
    "leading and trailing space": "  Buy milk \n",
    "bidirectional controls": "\u2066\u0627\u0634\u062a\u0631\u2069 \u200f\u202babc\u202c\u061c \u202d\u202e\u202c",
    "invisible letters": "\ufeffa\u200bb\u200cc\u200dd\u00ade\u2060f\u180eg\ufe0fh\U000e0041",
    "noncharacters": "\ufdd0\ufdef\U0001fffe\U0001ffff\U000f0000\U0010fffd\U00030000",
    "supplementary planes": "\U00020000\U0002a6df\U0002ebe0\U00031350\U0001f3f4\U0001f1e6\U0001f1f9",
    "composed from parts": "\u1112\u1161\u11ab \ud55c \u0915\u094d\u0937 \u0e01\u0e49\u0e33 \u0f51\u0f7a \u0b95\u0bbe",
    "controls": "\x01\x02\x1b[31m\x1b]0;x\x07\x7f\x80\x9b31m\x9f",
    "line ends": "a\nb\rc\r\nd\n\re\x1cf\x1dg\x1eh\t\v\f",
    "event stream syntax": "a\n\ndata: {}\n\nevent: turn.completed\ndata: x\n\n:",
    "escape sequences": "\\u0000 \\ud800 &amp; %00 %C3%A9 =?utf-8?q?=00?= \\x00 &#0;",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_of_a_task_is_unchanged(ada: ApiUser, text: str) -> None:
    made = await ada.create("tasks", title=text, description=text * 20)

    assert (made["title"], made["description"]) == (text, text * 20)
    assert await ada.list_items("tasks") == [made]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_of_title_messages_and_tool_calls_is_unchanged(ada: ApiUser, text: str) -> None:
    conversation = await ada.create("conversations", title=text)
    message = f"/add_task {json.dumps({'title': text})}\n{text}"
    answer = await ada.chat(message, conversation_id=conversation["id"])
    (call,) = answer["tool_calls"]
    messages = await ada.list_items(f"conversations/{conversation['id']}/messages")

    assert (await ada.list_items("conversations"))[0]["title"] == text
    assert (call["arguments"]["title"], call["result"]["title"]) == (text, text)
    assert [stored["content"] for stored in messages] == [message, answer["response"]]
    assert messages[1]["tool_calls"] == [call]
    assert (await ada.list_items("tasks"))[0]["title"] == text


async def test_text_with_escaped_surrogate_pairs_is_decoded(ada: ApiUser) -> None:
    body = b'{"title": "\\ud83e\\udd5b \\u00e9"}'
    made = await ada.post("tasks", content=body, headers={"content-type": "application/json"})

    assert made.json()["title"] == "🥛 é"
    assert "🥛 é".encode() in made.content


async def test_text_length_limits_count_characters(ada: ApiUser) -> None:
    """Not bytes: a limit is the same in every script."""
    task = await ada.create("tasks", title="牛" * 200, description="🥛" * 10_000)
    answer = await ada.chat("🥛" * 32_000)
    messages = await ada.list_items(f"conversations/{answer['conversation_id']}/messages")

    assert (await ada.get(f"tasks/{task['id']}")).json() == task
    assert messages[0]["content"] == "🥛" * 32_000


async def test_text_of_the_history_for_the_model_is_unchanged(ada: ApiUser) -> None:
    """The second turn reads the first from the database."""
    text = " · ".join(TEXTS.values())
    first = await ada.chat(text)
    second = await ada.chat("/list_tasks", conversation_id=first["conversation_id"])
    listing = await ada.list_items(f"conversations/{first['conversation_id']}/messages")

    assert listing[0]["content"] == text
    assert second["tool_calls"][0]["result"] == {"items": [], "next_cursor": None}


_NAMES = {"timezone", "assistant", "model", "client_conversation_id"}


def texts_of(operation: Operation) -> list[str]:
    """The members of its body that are free text: no enum, no format and no name."""
    if operation.body_schema is None:
        return []
    properties = resolve(operation.body_schema, DOCUMENT)["properties"]
    kinds = {name: schema.get("anyOf", [schema])[0] for name, schema in properties.items()}
    return [
        name
        for name, schema in kinds.items()
        if schema.get("type") == "string" and not {"format", "enum"} & schema.keys() and name not in _NAMES
    ]


@each_operation(texts_of)
async def test_text_of_every_operation_is_unchanged(ada: ApiUser, operation: Operation) -> None:
    """In the response, and when it is read again."""
    for text in TEXTS.values():
        path = operation.path_with(await create_one_of_each(ada))
        body = {**(operation.body or {}), **dict.fromkeys(texts_of(operation), text)}
        content = json.dumps(body, ensure_ascii=False).encode()
        answer = await ada.request(operation.method, path, headers=operation.headers, content=content)
        assert answer.status_code in {200, 201}, answer.text
        assert [name for name in texts_of(operation) if name != "message" and answer.json()[name] != text] == []
        if where := answer.headers.get("location"):
            read = await ada.get(where.removeprefix(ada.path("")))
            assert [name for name in texts_of(operation) if read.json()[name] != text] == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_of_an_artifact_is_unchanged_in_each_version(ada: ApiUser, text: str) -> None:
    artifact = await ada.create("artifacts", title=text, content_markdown=text * 20)
    revised = await ada.put(f"artifacts/{artifact['id']}", json={"content_markdown": text + "2"})
    downloads = [await ada.get(f"artifacts/{artifact['id']}/content", params={"version": n}) for n in (1, 2)]
    versions = await ada.list_items(f"artifacts/{artifact['id']}/versions")

    assert (revised.json()["title"], revised.json()["content_markdown"]) == (text, text + "2")
    assert [response.content for response in downloads] == [(text * 20).encode(), (text + "2").encode()]
    assert [item["title"] for item in versions] == [text, text]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_in_events_is_unchanged(ada: ApiUser, text: str) -> None:
    """The arguments and result of a tool call, and the deltas of the answer."""
    message = f"/add_task {json.dumps({'title': text, 'description': text})}"
    async with stream_chat(ada, message) as source:
        events = await source.rest()
    payloads = {event.name: event.payload for event in events}

    assert payloads["tool_call.started"]["arguments"] == {"title": text, "description": text}
    assert payloads["tool_call.completed"]["result"]["title"] == text
    assert answer_text(events) == payloads["turn.completed"]["response"]
    assert (await ada.list_items("tasks"))[0]["description"] == text


async def test_text_in_mcp_tools_and_resources_is_unchanged(service: Service, ada: ApiUser) -> None:
    """Written over MCP and read over HTTP, and vice versa."""
    async with service.mcp_client(ada.token) as client:
        for text in TEXTS.values():
            task = await client.call_tool("add_task", {"title": text, "description": text})
            saved = await client.call_tool("save_artifact", {"title": text, "content_markdown": text})
            id = content(saved)["id"]
            shown = content(await client.call_tool("get_artifact", {"artifact_id": id}))
            resource: Any = (await client.read_resource(f"latchkey://artifacts/{id}")).contents[0]
            stored = (await ada.get(f"artifacts/{id}")).json()

            assert (await ada.get(f"tasks/{content(task)['id']}")).json() == content(task)
            assert (content(task)["title"], content(task)["description"]) == (text, text)
            assert shown["content_markdown"] == resource.text == stored["content_markdown"] == text
            assert shown["title"] == stored["title"] == text


def content(result: Any) -> dict[str, Any]:
    structured: dict[str, Any] = result.structured_content
    return structured


ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=150)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
async def test_text_from_hypothesis_is_unchanged(ada: ApiUser, text: str) -> None:
    task = await ada.create("tasks", title=f"{text}.", description=text)
    artifact = await ada.create("artifacts", title=f".{text}", content_markdown=text)
    read = (await ada.get(f"tasks/{task['id']}")).json()
    download = await ada.get(f"artifacts/{artifact['id']}/content")

    assert (read["title"], read["description"], artifact["title"]) == (f"{text}.", text, f".{text}")
    assert download.content == text.encode()
