"""Request validation: invalid bodies and parameters are refused, and the error says what is wrong and where."""

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
    "an escaped lone surrogate": (b'{"title": "\\ud83d"}', "not valid JSON"),
    "an escaped lone surrogate within a text": (b'{"title": "\\ud83d milk"}', "surrogate"),
    "an escaped surrogate pair in reverse order": (b'{"title": "\\ude00\\ud83d"}', "surrogate"),
    "NaN": (b'{"title": NaN}', "not valid JSON"),
    "a duplicate member": (b'{"title": "a", "title": "b"}', "same name"),
    "a duplicate member, beside a text with colons": (b'{"title": "a: b", "title": "::"}', "same name"),
    "a duplicate member, once escaped": (b'{"title": "a", "\\u0074itle": "b"}', "same name"),
    "a comment": (b'{"title": "a" /* milk */}', "not valid JSON"),
    "a control character": (b'{"title": "a\nb"}', "not valid JSON"),
}
INVALID: dict[str, tuple[bytes, str]] = {
    "null": (b"null", "$"),
    "a list": (b'[{"title": "a"}]', "$"),
    "a text": (b'"title"', "$"),
    "deeply nested": (b"[" * 100_000 + b"]" * 100_000, "$"),
    "an empty object": (b"{}", "$"),
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
    "a text that is not a time": (b'{"title": "a", "due_at": "tomorrow"}', "$.due_at"),
    "a time as a number": (b'{"title": "a", "due_at": 1767225600}', "$.due_at"),
    "a time in the first year": (b'{"title": "a", "due_at": "0001-12-31T23:59:59-10:00"}', "$.due_at"),
    "a time in the last year": (b'{"title": "a", "due_at": "9999-01-01T00:00:00Z"}', "$.due_at"),
}


@pytest.mark.parametrize(("body", "detail"), MALFORMED.values(), ids=MALFORMED)
async def test_body_that_cannot_be_parsed_is_malformed(ada: ApiUser, body: bytes, detail: str) -> None:
    refused = await ada.post("tasks", content=body, headers=JSON)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert detail in refused.json()["detail"]
    assert await ada.list_items("tasks") == []


@pytest.mark.parametrize(("body", "path"), INVALID.values(), ids=INVALID)
async def test_body_that_breaks_the_schema_names_the_path_of_the_error(ada: ApiUser, body: bytes, path: str) -> None:
    refused = await ada.post("tasks", content=body, headers=JSON)
    problem = refused.json()

    assert (refused.status_code, problem["code"]) == (422, "invalid")
    assert [fault["path"] for fault in problem["errors"]] == [path]
    assert problem["errors"][0]["message"] in problem["detail"]
    assert await ada.list_items("tasks") == []


async def test_body_error_says_what_is_expected(ada: ApiUser) -> None:
    faults = [
        (await ada.post("tasks", content=INVALID[name][0], headers=JSON)).json()["errors"][0]["message"]
        for name in ("an empty object", "an unknown field", "a text that is too long", "NUL")
    ]

    assert faults == [
        "Object missing required field `title`",
        "Object contains unknown field `owner`",
        "Expected `str` of length <= 200",
        "Expected text with at least one visible character, without NUL and without lone surrogates",
    ]


async def test_body_error_of_a_text_names_the_rule_of_its_field(ada: ApiUser) -> None:
    description = await ada.post("tasks", json={"title": "a", "description": "\x00"})
    name = await ada.post("chat", json={"message": "a", "client_conversation_id": "a\n"})

    assert [response.json()["errors"][0]["message"] for response in (description, name)] == [
        "Expected text without NUL and without lone surrogates",
        "Expected text without control characters and without lone surrogates",
    ]


@pytest.mark.parametrize("given", [b"0002-01-01T00:00:00Z", b"9998-12-31T23:59:59.999999Z"])
async def test_due_at_accepts_the_first_and_last_possible_time(ada: ApiUser, given: bytes) -> None:
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
async def test_content_type_other_than_json_is_unsupported(ada: ApiUser, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    refused = await ada.post("tasks", content=b'{"title": "Buy milk"}', headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported-media-type")
    assert "application/json" in refused.json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON", "application/json;"],
)
async def test_content_type_is_parsed_as_http_allows(ada: ApiUser, content_type: str) -> None:
    taken = await ada.post("tasks", content=b'{"title": "Buy milk"}', headers={"content-type": content_type})

    assert taken.status_code == 201


async def test_content_type_of_patch_other_than_json_is_unsupported(ada: ApiUser) -> None:
    task = await ada.create("tasks", title="Buy milk")
    refused = await ada.patch(f"tasks/{task['id']}", content=b"{}", headers={"content-type": "text/plain"})

    assert refused.status_code == 415
    assert "application/merge-patch+json" in refused.json()["detail"]


async def test_body_size_limit_accepts_the_longest_message_and_refuses_more(ada: ApiUser) -> None:
    """The longest message is below the limit even if each character is escaped as a surrogate pair."""
    longest = b'{"message": "%s"}' % (b"\\ud83d\\ude00" * 32_000)
    too_large = b'{"message": "%s"}' % (b"a" * MAX_BODY_BYTES)

    async def in_chunks() -> AsyncIterator[bytes]:
        yield too_large

    assert (await ada.post("chat", content=longest, headers=JSON)).status_code == 200
    for content in (too_large, in_chunks()):
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
async def test_query_parameter_invalid_names_the_parameter(ada: ApiUser, params: dict[str, str], path: str) -> None:
    refused = await ada.get("tasks", params=params)
    problem = refused.json()

    assert (refused.status_code, problem["code"]) == (422, "invalid")
    assert [fault["path"] for fault in problem["errors"]] == [path]


async def test_query_parameter_order_is_asc_or_desc(ada: ApiUser) -> None:
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
async def test_query_parameter_unknown_or_duplicate_is_invalid(
    ada: ApiUser, params: list[tuple[str, str]], message: str
) -> None:
    """A client that misspells `cursor` must not receive the first page again."""
    refused = await ada.get("tasks", params=params)

    assert (refused.status_code, refused.json()["detail"]) == (422, message)


@pytest.mark.parametrize("id", ["1", "01a1f88f-b877-757a-8488", "%00", "..%2f..", "null", "é"])
async def test_path_id_that_is_not_a_uuid_is_not_found(ada: ApiUser, id: str) -> None:
    responses = [await ada.get(f"tasks/{id}"), await ada.delete(f"tasks/{id}")]

    assert [(response.status_code, response.json()["code"]) for response in responses] == [(404, "not-found")] * 2
