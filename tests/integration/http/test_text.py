"""Text in any script comes back as it was said, byte for byte, on every way into the database."""

import json

import pytest

from tests.integration.http.service import Person

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = {
    "astral": "Milk 🥛 for 👩‍👩‍👧‍👦 and 🏴󠁧󠁢󠁷󠁬󠁳󠁿 \U0001d518 𒐫",
    "combining": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "two ways to write one letter": "é e\u0301 ﬁ \uff21",
    "right to left": "\u05e7\u05e0\u05d4 חלב \u202e\u05e9\u05dc\u05d5\u05dd\u202c اشتر الحليب",
    "scripts": "牛乳を買う · 우유 사기 · ซื้อนม · दूध खरीदें · купить молоко",
    "separators": "a\u2028b\u2029c\x85d\ve\ff\r\ng\th",
    "edges of Unicode": "\x01\x7f\x80\ud7ff\ue000\ufffd\ufffe\uffff\U00010000\U0010ffff",
    "what looks like syntax": "'; DROP TABLE tasks; -- %s {} \\ \" $1 :u",
    "leading and trailing space": "  Buy milk \n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_task_keeps_it(ada: Person, text: str) -> None:
    made = await ada.made("tasks", title=text, description=text * 20)

    assert (made["title"], made["description"]) == (text, text * 20)
    assert await ada.items("tasks") == [made]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_conversation_keeps_it_in_its_title_its_messages_and_its_tool_calls(ada: Person, text: str) -> None:
    conversation = await ada.made("conversations", title=text)
    said = f"/add_task {json.dumps({'title': text})}\n{text}"
    answer = await ada.said(said, conversation_id=conversation["id"])
    (call,) = answer["tool_calls"]
    messages = await ada.items(f"conversations/{conversation['id']}/messages")

    assert (await ada.items("conversations"))[0]["title"] == text
    assert (call["arguments"]["title"], call["result"]["title"]) == (text, text)
    assert [message["content"] for message in messages] == [said, answer["response"]]
    assert messages[1]["tool_calls"] == [call]
    assert (await ada.items("tasks"))[0]["title"] == text


async def test_escaped_pairs_are_the_characters_that_they_stand_for(ada: Person) -> None:
    body = b'{"title": "\\ud83e\\udd5b \\u00e9"}'
    made = await ada.post("tasks", content=body, headers={"content-type": "application/json"})

    assert made.json()["title"] == "🥛 é"
    assert "🥛 é".encode() in made.content


async def test_the_longest_texts_fit_counted_in_characters(ada: Person) -> None:
    """Not in bytes: a limit means the same in every script."""
    task = await ada.made("tasks", title="牛" * 200, description="🥛" * 10_000)
    answer = await ada.said("🥛" * 32_000)
    messages = await ada.items(f"conversations/{answer['conversation_id']}/messages")

    assert (await ada.get(f"tasks/{task['id']}")).json() == task
    assert messages[0]["content"] == "🥛" * 32_000


async def test_a_token_stream_of_what_a_model_is_told_is_not_changed_either(ada: Person) -> None:
    """The second turn reads the first from the database."""
    text = " · ".join(TEXTS.values())
    first = await ada.said(text)
    second = await ada.said("/list_tasks", conversation_id=first["conversation_id"])
    listing = await ada.items(f"conversations/{first['conversation_id']}/messages")

    assert listing[0]["content"] == text
    assert second["tool_calls"][0]["result"] == {"items": [], "next_cursor": None}
