"""Bodies that no client of the SDK would send: each gets a JSON-RPC error, and none a 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from latchkey.application.tasks import list_tasks
from latchkey.domain.credentials import TokenSecret
from latchkey.interfaces.mcp.http.body import MAX_BYTES, Message, Receive
from tests.integration.mcp.jsonrpc import call, headers, message, post
from tests.integration.mcp.mcp_service import ME, McpService


def nested(protocol: str, levels: int) -> dict[str, Any]:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    return call(protocol, "add_task", {"title": deep})


def adding(protocol: str, title: bytes) -> bytes:
    """A call of `add_task` with that as the JSON of its title."""
    return json.dumps(call(protocol, "add_task", {"title": "TITLE"})).encode().replace(b'"TITLE"', title)


UNREADABLE = {
    "nothing": b"",
    "no JSON": b"title=x",
    "not UTF-8": b'"a\xff"',
    "an encoded surrogate": b'"a\xed\xa0\x80"',
    "an escaped surrogate": rb'"a\ud800"',
    "no number": b"NaN",
    "an endless number": b"1e999",
    "very deep": b"[" * 5000 + b"]" * 5000,
    "cut short": b'"a',
}


@pytest.mark.parametrize("title", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_readers_of_json_would_read_differently_is_not_read(
    service: McpService, protocol: str, title: bytes
) -> None:
    body = adding(protocol, title) if title else b""
    async with service.http() as http:
        answer = await post(http, protocol, call(protocol, "add_task"), service.jwt(), body=body)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (400, -32700, None)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"5", b"null", b'{"id":1}'])
async def test_what_is_no_message_is_refused(service: McpService, protocol: str, body: bytes) -> None:
    async with service.http() as http:
        answer = await post(http, protocol, message(protocol, "ping"), service.jwt(), body=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {-32600, -32602}


async def test_a_batch_is_refused(service: McpService, protocol: str) -> None:
    body = json.dumps([call(protocol, "add_task", {"title": "x"})] * 2).encode()
    async with service.http() as http:
        answer = await post(http, protocol, call(protocol, "add_task"), service.jwt(), body=body)

    assert answer.status_code == 400
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_depth_is_limited(service: McpService, protocol: str) -> None:
    """A body may be 64 levels deep, of which the message takes three."""
    async with service.http() as http:
        answers = [await post(http, protocol, nested(protocol, levels), service.jwt()) for levels in (61, 62)]

    assert [answer.status_code for answer in answers] == [200, 400]
    assert answers[0].json()["result"]["isError"]
    assert answers[1].json()["error"]["code"] == -32700


async def test_size_is_limited(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        answers = [
            await post(http, protocol, call(protocol, "add_task", {"title": "x" * size}), service.jwt())
            for size in (MAX_BYTES - 1024, MAX_BYTES)
        ]

    assert [answer.status_code for answer in answers] == [200, 413]
    assert answers[1].json()["error"]["code"] == -32600


async def test_nul_in_an_argument_is_a_tool_error(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        answer = await post(
            http, protocol, call(protocol, "add_task"), service.jwt(), body=adding(protocol, rb'"a\u0000b"')
        )

    assert json.loads(answer.json()["result"]["content"][0]["text"])["code"] == "invalid"


@pytest.mark.parametrize("arguments", [[], "x", 5, [["title", "x"]]], ids=str)
async def test_arguments_that_are_no_object_are_refused(service: McpService, protocol: str, arguments: Any) -> None:
    async with service.http() as http:
        sent = message(protocol, "tools/call", {"name": "add_task", "arguments": arguments})
        answer = await post(http, protocol, sent, service.jwt())

    assert answer.json()["error"]["code"] == -32602


async def test_the_last_of_two_equal_names_counts(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        answer = await post(
            http, protocol, call(protocol, "add_task"), service.jwt(), body=adding(protocol, b'"first","title":"last"')
        )

    assert answer.json()["result"]["structuredContent"]["title"] == "last"


def arriving(protocol: str, service: McpService, *, complete: bool) -> tuple[dict[str, Any], Receive]:
    """A call of `add_task` as a server hands it on: all of it or the first part, and then its client is gone."""
    sent = call(protocol, "add_task", {"title": "Buy milk"})
    named = [(name.encode(), value.encode()) for name, value in headers(protocol, sent, service.jwt()).items()]
    body: Message = {"type": "http.request", "body": json.dumps(sent).encode(), "more_body": not complete}
    coming: list[Message] = [body]

    async def receive() -> Message:
        return coming.pop() if coming else {"type": "http.disconnect"}

    return {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": named}, receive


async def test_a_client_that_leaves_does_not_stop_its_call(service: McpService, protocol: str) -> None:
    """It has sent its request and is gone before the answer: the task is there all the same."""

    async def send(_: Message) -> None:
        """Nobody listens."""

    async with service.endpoint.run():
        await service.endpoint(*arriving(protocol, service, complete=True), send)

    assert [task.title for task in (await service.dispatcher.call(ME, list_tasks)).items] == ["Buy milk"]


async def test_a_client_that_leaves_in_the_middle_of_its_request_has_asked_nothing(
    service: McpService, protocol: str
) -> None:
    answered: list[Message] = []

    async def send(said: Message) -> None:
        answered.append(said)

    async with service.endpoint.run():
        await service.endpoint(*arriving(protocol, service, complete=False), send)

    assert answered == []
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_nothing_large_is_read_under_a_token_that_nobody_minted(service: McpService) -> None:
    """Though somebody of that name has requests left: it takes memory and time to read it."""
    await service.dispatcher.acquire(ME)
    read: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            read.append(number)
            yield b" " * 100_000

    async with service.http() as http:
        forged = {"authorization": f"Bearer {TokenSecret.mint(ME.user_id).text}"}
        in_chunks = await http.post("", headers=forged, content=pieces())
        announced = await http.post("", headers={**forged, "content-length": "9000000"}, content=pieces())
        right = {"authorization": f"Bearer {(await service.secret()).text}"}
        of_somebody = await http.post("", headers=right, content=pieces())

    assert [answer.status_code for answer in (in_chunks, announced, of_somebody)] == [401, 401, 413]
    assert read == list(range(84))


@pytest.mark.parametrize("part", [b"[],", b"0,", b'"",', b'{"a":0},'], ids=["lists", "numbers", "texts", "objects"])
async def test_more_values_than_any_call_has_are_not_read(service: McpService, part: bytes) -> None:
    """A text may hold as many of the same characters as it likes."""
    many = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"a":[' + part * 20_000 + b"0]}}}"
    title = '[{,\\\\"' * 40_000
    written = call("current", "save_artifact", {"title": "Commas", "content_markdown": title})
    async with service.http() as http:
        refused = await http.post("", headers={"authorization": f"Bearer {service.jwt()}"}, content=many)
        saved = await post(http, "current", written, service.jwt())

    assert (refused.status_code, "more than 10000 values" in refused.text) == (413, True)
    assert saved.json()["result"]["isError"] is False
