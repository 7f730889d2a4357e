"""Bodies that no SDK client would send: each response is a JSON-RPC error, and none is a 500."""

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


def add_task_body(protocol: str, title: bytes) -> bytes:
    """Return the body of a call of `add_task` with this JSON as its title."""
    return json.dumps(call(protocol, "add_task", {"title": "TITLE"})).encode().replace(b'"TITLE"', title)


INVALID_JSON = {
    "empty body": b"",
    "not JSON": b"title=x",
    "not UTF-8": b'"a\xff"',
    "encoded surrogate": b'"a\xed\xa0\x80"',
    "escaped surrogate": rb'"a\ud800"',
    "NaN": b"NaN",
    "number out of range": b"1e999",
    "deeply nested": b"[" * 5000 + b"]" * 5000,
    "truncated": b'"a',
}


@pytest.mark.parametrize("title", INVALID_JSON.values(), ids=INVALID_JSON)
async def test_body_of_invalid_json_is_a_parse_error(service: McpService, protocol: str, title: bytes) -> None:
    body = add_task_body(protocol, title) if title else b""
    async with service.http() as http:
        response = await post(http, protocol, call(protocol, "add_task"), service.jwt(), body=body)

    assert (response.status_code, response.json()["error"]["code"], response.json()["id"]) == (400, -32700, None)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"5", b"null", b'{"id":1}'])
async def test_body_without_jsonrpc_message_is_refused(service: McpService, protocol: str, body: bytes) -> None:
    async with service.http() as http:
        response = await post(http, protocol, message(protocol, "ping"), service.jwt(), body=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] in {-32600, -32602}


async def test_body_with_batch_is_refused(service: McpService, protocol: str) -> None:
    body = json.dumps([call(protocol, "add_task", {"title": "x"})] * 2).encode()
    async with service.http() as http:
        response = await post(http, protocol, call(protocol, "add_task"), service.jwt(), body=body)

    assert response.status_code == 400
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_body_nesting_is_limited(service: McpService, protocol: str) -> None:
    """64 levels are allowed, of which the message itself takes three."""
    async with service.http() as http:
        responses = [await post(http, protocol, nested(protocol, levels), service.jwt()) for levels in (61, 62)]

    assert [response.status_code for response in responses] == [200, 400]
    assert responses[0].json()["result"]["isError"]
    assert responses[1].json()["error"]["code"] == -32700


async def test_body_size_is_limited(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        responses = [
            await post(http, protocol, call(protocol, "add_task", {"title": "x" * size}), service.jwt())
            for size in (MAX_BYTES - 1024, MAX_BYTES)
        ]

    assert [response.status_code for response in responses] == [200, 413]
    assert responses[1].json()["error"]["code"] == -32600


async def test_argument_with_nul_is_a_tool_error(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        response = await post(
            http, protocol, call(protocol, "add_task"), service.jwt(), body=add_task_body(protocol, rb'"a\u0000b"')
        )

    assert json.loads(response.json()["result"]["content"][0]["text"])["code"] == "invalid"


@pytest.mark.parametrize("arguments", [[], "x", 5, [["title", "x"]]], ids=str)
async def test_arguments_other_than_an_object_are_refused(service: McpService, protocol: str, arguments: Any) -> None:
    async with service.http() as http:
        request = message(protocol, "tools/call", {"name": "add_task", "arguments": arguments})
        response = await post(http, protocol, request, service.jwt())

    assert response.json()["error"]["code"] == -32602


@pytest.mark.parametrize(
    "title",
    [b'"first","title":"last"', b'"first","\\u0074itle":"last"', b'"first","description":[{"a":1,"b":{},"a":2}]'],
)
async def test_duplicate_member_in_body_is_a_parse_error(service: McpService, protocol: str, title: bytes) -> None:
    """As in REST: JSON readers disagree about which value counts."""
    body = add_task_body(protocol, title)
    async with service.http() as http:
        response = await post(http, protocol, call(protocol, "add_task"), service.jwt(), body=body)

    assert (response.status_code, response.json()["error"]["code"]) == (400, -32700)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


def interrupted_request(protocol: str, service: McpService, *, complete: bool) -> tuple[dict[str, Any], Receive]:
    """Return scope and receive of a call of `add_task` whose client disconnects after its body, or within it."""
    request = call(protocol, "add_task", {"title": "Buy milk"})
    fields = [(name.encode(), value.encode()) for name, value in headers(protocol, request, service.jwt()).items()]
    body: Message = {"type": "http.request", "body": json.dumps(request).encode(), "more_body": not complete}
    incoming: list[Message] = [body]

    async def receive() -> Message:
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    return {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": fields}, receive


async def test_disconnect_after_request_does_not_stop_the_call(service: McpService, protocol: str) -> None:
    """The client does not get the response, but the task is added."""

    async def send(_: Message) -> None:
        """The client is gone."""

    async with service.endpoint.run():
        await service.endpoint(*interrupted_request(protocol, service, complete=True), send)

    assert [task.title for task in (await service.dispatcher.call(ME, list_tasks)).items] == ["Buy milk"]


async def test_disconnect_within_request_has_no_effect(service: McpService, protocol: str) -> None:
    sent_messages: list[Message] = []

    async def send(part: Message) -> None:
        sent_messages.append(part)

    async with service.endpoint.run():
        await service.endpoint(*interrupted_request(protocol, service, complete=False), send)

    assert sent_messages == []
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_large_body_with_invalid_token_is_not_read(service: McpService) -> None:
    """Even if the named user has requests left in the quota: reading costs memory and time."""
    await service.dispatcher.acquire(ME)
    read: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(100):
            read.append(number)
            yield b" " * 100_000

    async with service.http() as http:
        forged = {"authorization": f"Bearer {TokenSecret.mint(ME.user_id).text}"}
        in_chunks = await http.post("", headers=forged, content=chunks())
        announced = await http.post("", headers={**forged, "content-length": "9000000"}, content=chunks())
        valid = {"authorization": f"Bearer {(await service.secret()).text}"}
        with_valid_token = await http.post("", headers=valid, content=chunks())

    assert [response.status_code for response in (in_chunks, announced, with_valid_token)] == [401, 401, 413]
    assert read == list(range(84))


@pytest.mark.parametrize("part", [b"[],", b"0,", b'"",', b'{"a":0},'], ids=["lists", "numbers", "texts", "objects"])
async def test_body_with_too_many_values_is_refused_before_parsing(service: McpService, part: bytes) -> None:
    """Inside a string, the same characters are allowed."""
    many = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"a":[' + part * 20_000 + b"0]}}}"
    title = '[{,\\\\"' * 40_000
    allowed = call("current", "save_artifact", {"title": "Commas", "content_markdown": title})
    async with service.http() as http:
        refused = await http.post("", headers={"authorization": f"Bearer {service.jwt()}"}, content=many)
        saved = await post(http, "current", allowed, service.jwt())

    assert (refused.status_code, "more than 10000 values" in refused.text) == (413, True)
    assert saved.json()["result"]["isError"] is False
