"""Bodies and parameters that are not what they should be: each is refused with a text that says what is wrong."""

from collections.abc import AsyncIterator

import pytest

from latchkey.interfaces.http.requests import MAX_BODY_BYTES
from tests.support.service import ApiUser

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"content-type": "application/json"}
MALFORMED: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "Missing request body"),
    "not JSON": (b"title=Buy milk", "not valid JSON"),
    "JSON that ends too early": (b'{"title": "Buy', "not valid JSON"),
    "more than one value": (b'{"title": "a"} {"title": "b"}', "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"title": "a"}', "not valid JSON"),
    "not UTF-8": (b'{"title": "\xff"}', "UTF-8"),
    "an overlong encoding": (b'{"title": "\xc0\xaf"}', "UTF-8"),
    "an encoded surrogate": (b'{"title": "\xed\xa0\x80"}', "UTF-8"),
    "an escaped half of a pair": (b'{"title": "\\ud83d"}', "not valid JSON"),
    "an escaped half of a pair within a text": (b'{"title": "\\ud83d milk"}', "surrogate"),
    "an escaped pair the wrong way round": (b'{"title": "\\ude00\\ud83d"}', "surrogate"),
    "NaN": (b'{"title": NaN}', "not valid JSON"),
    "a name twice": (b'{"title": "a", "title": "b"}', "same name"),
    "a name twice, beside a text with colons": (b'{"title": "a: b", "title": "::"}', "same name"),
    "a name twice, once escaped": (b'{"title": "a", "\\u0074itle": "b"}', "same name"),
    "a comment": (b'{"title": "a" /* milk */}', "not valid JSON"),
    "a control character": (b'{"title": "a\nb"}', "not valid JSON"),
}
INVALID: dict[str, tuple[bytes, str]] = {
    "null": (b"null", "$"),
    "a list": (b'[{"title": "a"}]', "$"),
    "a text": (b'"title"', "$"),
    "deeply nested": (b"[" * 100_000 + b"]" * 100_000, "$"),
    "nothing in it": (b"{}", "$"),
    "an unknown field": (b'{"title": "a", "owner": "bob"}', "$"),
    "another user": (b'{"title": "a", "user_id": "bob"}', "$"),
    "a deep unknown field": (b'{"title": "a", "x": ' + b'{"x":' * 500 + b"1" + b"}" * 501, "$"),
    "a number for a text": (b'{"title": 5}', "$.title"),
    "null for a text": (b'{"title": null}', "$.title"),
    "an empty text": (b'{"title": ""}', "$.title"),
    "a blank text": (b'{"title": " \\u00a0\\t"}', "$.title"),
    "a text that is too long": (b'{"title": "%s"}' % (b"a" * 201), "$.title"),
    "NUL": (b'{"title": "a\\u0000b"}', "$.title"),
    "NUL in an optional text": (b'{"title": "a", "description": "a\\u0000b"}', "$.description"),
    "a time without an offset": (b'{"title": "a", "due_at": "2026-03-01T09:00:00"}', "$.due_at"),
    "a time that is none": (b'{"title": "a", "due_at": "tomorrow"}', "$.due_at"),
    "a time as a number": (b'{"title": "a", "due_at": 1767225600}', "$.due_at"),
    "a time in the first year": (b'{"title": "a", "due_at": "0001-12-31T23:59:59-10:00"}', "$.due_at"),
    "a time in the last year": (b'{"title": "a", "due_at": "9999-01-01T00:00:00Z"}', "$.due_at"),
}


@pytest.mark.parametrize(("body", "said"), MALFORMED.values(), ids=MALFORMED)
async def test_what_cannot_be_read_is_malformed(ada: ApiUser, body: bytes, said: str) -> None:
    refused = await ada.post("tasks", content=body, headers=JSON)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert said in refused.json()["detail"]
    assert await ada.list_items("tasks") == []


@pytest.mark.parametrize(("body", "path"), INVALID.values(), ids=INVALID)
async def test_what_breaks_a_rule_is_invalid_and_the_place_is_named(ada: ApiUser, body: bytes, path: str) -> None:
    refused = await ada.post("tasks", content=body, headers=JSON)
    problem = refused.json()

    assert (refused.status_code, problem["code"]) == (422, "invalid")
    assert [fault["path"] for fault in problem["errors"]] == [path]
    assert problem["errors"][0]["message"] in problem["detail"]
    assert await ada.list_items("tasks") == []


async def test_a_fault_says_what_would_be_right(ada: ApiUser) -> None:
    faults = [
        (await ada.post("tasks", content=INVALID[name][0], headers=JSON)).json()["errors"][0]["message"]
        for name in ("nothing in it", "an unknown field", "a text that is too long", "NUL")
    ]

    assert faults == [
        "Object missing required field `title`",
        "Object contains unknown field `owner`",
        "Expected `str` of length <= 200",
        "Expected text with at least one visible character, without NUL and without lone surrogates",
    ]


@pytest.mark.parametrize("given", [b"0002-01-01T00:00:00Z", b"9998-12-31T23:59:59.999999Z"])
async def test_what_can_be_due_at_the_ends_of_time_comes_back_as_it_was(ada: ApiUser, given: bytes) -> None:
    made = await ada.post("tasks", content=b'{"title": "a", "due_at": "%s"}' % given, headers=JSON)

    assert made.status_code == 201
    assert (await ada.list_items("tasks"))[0]["due_at"] == given.decode()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
    ],
)
async def test_a_body_of_another_media_type_is_not_taken(ada: ApiUser, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    refused = await ada.post("tasks", content=b'{"title": "Buy milk"}', headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported-media-type")
    assert "application/json" in refused.json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON", "application/json;"],
)
async def test_a_media_type_may_be_written_as_http_allows(ada: ApiUser, content_type: str) -> None:
    taken = await ada.post("tasks", content=b'{"title": "Buy milk"}', headers={"content-type": content_type})

    assert taken.status_code == 201


async def test_a_patch_takes_no_other_media_type_either(ada: ApiUser) -> None:
    task = await ada.create("tasks", title="Buy milk")
    refused = await ada.patch(f"tasks/{task['id']}", content=b"{}", headers={"content-type": "text/plain"})

    assert refused.status_code == 415
    assert "application/merge-patch+json" in refused.json()["detail"]


async def test_a_body_may_be_as_large_as_a_message_can_be_and_no_larger_than_the_limit(ada: ApiUser) -> None:
    """The longest message, each character escaped as a pair, is far below it."""
    longest = b'{"message": "%s"}' % (b"\\ud83d\\ude00" * 32_000)
    too_large = b'{"message": "%s"}' % (b"a" * MAX_BODY_BYTES)

    async def in_pieces() -> AsyncIterator[bytes]:
        yield too_large

    assert (await ada.post("chat", content=longest, headers=JSON)).status_code == 200
    for content in (too_large, in_pieces()):
        refused = await ada.post("chat", content=content, headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "-5"}, "limit"),
        ({"limit": "99999999999999999999"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"status": "done"}, "status"),
        ({"cursor": "a" * 501}, "cursor"),
        ({"cursor": "not a cursor"}, "cursor"),
        ({"cursor": "\x00"}, "cursor"),
        ({"cursor": "bnVsbA"}, "cursor"),
        ({"cursor": "ImEi"}, "cursor"),
    ],
)
async def test_a_parameter_that_breaks_a_rule_is_named(ada: ApiUser, params: dict[str, str], path: str) -> None:
    refused = await ada.get("tasks", params=params)
    problem = refused.json()

    assert (refused.status_code, problem["code"]) == (422, "invalid")
    assert [fault["path"] for fault in problem["errors"]] == [path]


async def test_an_order_is_up_or_down(ada: ApiUser) -> None:
    conversation = await ada.create("conversations")
    refused = await ada.get(f"conversations/{conversation['id']}/messages", params={"order": "random"})

    assert [fault["path"] for fault in refused.json()["errors"]] == ["order"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([("offset", "-5")], "offset: Unknown query parameter: this operation takes `status`, `limit`, `cursor`"),
        ([("limit", "1"), ("limit", "2")], "limit: Duplicate query parameter `limit`: send it once"),
        ([("limit", "1e1")], "limit: Expected an integer in decimal digits"),
        ([("status", "null")], "status: Expected a value: leave the parameter out to send none"),
    ],
)
async def test_a_parameter_is_one_that_is_declared_once_and_spelled_as_published(
    ada: ApiUser, params: list[tuple[str, str]], message: str
) -> None:
    """Who asks for a second page in a way that nobody knows must not be given the first one again."""
    refused = await ada.get("tasks", params=params)

    assert (refused.status_code, refused.json()["detail"]) == (422, message)


@pytest.mark.parametrize("id", ["1", "01a1f88f-b877-757a-8488", "%00", "..%2f..", "null", "é"])
async def test_an_id_that_is_none_is_not_there(ada: ApiUser, id: str) -> None:
    found = [await ada.get(f"tasks/{id}"), await ada.delete(f"tasks/{id}")]

    assert [(one.status_code, one.json()["code"]) for one in found] == [(404, "not-found")] * 2
