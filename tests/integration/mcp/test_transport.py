"""Streamable HTTP around the messages: what is looked at before one is performed, and what is answered with it."""

import json
from typing import Any

import pytest
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
)

from latchkey.application.tasks import list_tasks
from tests.integration.mcp.jsonrpc import call, headers, message, notification, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, McpService

ADD = call("current", "add_task", {"title": "Buy milk"})


@pytest.mark.parametrize("accept", ["", "text/event-stream", "text/html, image/*", "application/jsonl"])
async def test_nothing_is_done_for_a_client_that_does_not_take_json(
    service: McpService, protocol: str, accept: str
) -> None:
    sent = call(protocol, "add_task", {"title": "Buy milk"})
    async with service.http() as http:
        answer = await http.post(
            MCP_URL, json=sent, headers=headers(protocol, sent, service.jwt()) | {"accept": accept}
        )

    assert (answer.status_code, answer.json()["error"]["code"]) == (406, INVALID_REQUEST)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", "Application/*;q=0.5", "text/html, application/json ;q=1"]
)
async def test_json_may_be_asked_for_in_any_way(service: McpService, protocol: str, accept: str) -> None:
    sent = call(protocol, "list_tasks")
    async with service.http() as http:
        answer = await http.post(
            MCP_URL, json=sent, headers=headers(protocol, sent, service.jwt()) | {"accept": accept}
        )

    assert answer.json()["result"]["isError"] is False


@pytest.mark.parametrize("kind", ["text/plain", "application/jsonl", "application/json, text/plain"])
async def test_a_body_is_json_and_says_so(service: McpService, protocol: str, kind: str) -> None:
    sent = call(protocol, "add_task", {"title": "Buy milk"})
    async with service.http() as http:
        answer = await http.post(
            MCP_URL, json=sent, headers=headers(protocol, sent, service.jwt()) | {"content-type": kind}
        )

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, INVALID_REQUEST)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_what_wants_no_answer_gets_none(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        answer = await post(http, protocol, notification("notifications/initialized"), service.jwt())

    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize("sent", [{"id": 1, "result": {}}, {"id": 1, "error": {"code": 1, "message": "No."}}], ids=str)
async def test_an_answer_that_nobody_waits_for_is_taken_in_the_older_eras_alone(
    service: McpService, protocol: str, sent: dict[str, Any]
) -> None:
    """The current protocol forbids clients to send one."""
    body = json.dumps({"jsonrpc": "2.0", **sent}).encode()
    async with service.http() as http:
        answer = await post(http, protocol, message(protocol, "ping"), service.jwt(), body=body)

    assert answer.status_code == (400 if protocol == "current" else 202)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mcp-method": "tools/list"},
        {"mcp-name": "list_tasks"},
        {"mcp-protocol-version": "2027-01-01"},
        {"mcp-name": "=?base64?!?="},
    ],
    ids=str,
)
async def test_headers_say_what_the_message_says(service: McpService, wrong: dict[str, str]) -> None:
    """Whoever routes by the header and whoever performs the message must not disagree."""
    async with service.http() as http:
        answer = await http.post(MCP_URL, json=ADD, headers=headers("current", ADD, service.jwt()) | wrong)

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (400, HEADER_MISMATCH, 1)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_a_header_that_says_two_things_says_nothing(service: McpService) -> None:
    twice = [*headers("current", ADD, service.jwt()).items(), ("mcp-name", "add_task")]
    async with service.http() as http:
        answer = await http.post(MCP_URL, json=ADD, headers=twice)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, HEADER_MISMATCH)


async def test_a_version_that_nobody_speaks_is_told_with_those_that_are_spoken(service: McpService) -> None:
    sent = message("current", "tools/list")
    sent["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2027-01-01"
    given = headers("current", sent, service.jwt()) | {"mcp-protocol-version": "2027-01-01"}
    async with service.http() as http:
        refused = [await http.post(MCP_URL, json=one, headers=given) for one in (sent, notification("x"))]

    assert [one.status_code for one in refused] == [400, 400]
    assert [one.json()["error"]["code"] for one in refused] == [UNSUPPORTED_PROTOCOL_VERSION] * 2
    assert refused[0].json()["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2027-01-01"}


async def test_a_method_that_is_not_there(service: McpService, protocol: str) -> None:
    """In the current protocol its status says so too."""
    async with service.http() as http:
        answer = await post(http, protocol, message(protocol, "prompts/list"), service.jwt())

    assert answer.status_code == (404 if protocol == "current" else 200)
    assert answer.json()["error"]["code"] == METHOD_NOT_FOUND


async def test_models_read_what_programs_read(service: McpService, protocol: str) -> None:
    """The text is the structured content, character for character; only the current protocol marks a result."""
    async with service.http() as http:
        await post(http, protocol, call(protocol, "add_task", {"title": 'Milk: "2 l" \\ é🥛'}), service.jwt())
        result = (await post(http, protocol, call(protocol, "list_tasks"), service.jwt())).json()["result"]

    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert result["structuredContent"]["items"][0]["title"] == 'Milk: "2 l" \\ é🥛'
    assert ("resultType" in result, "_meta" in result) == ((True, True) if protocol == "current" else (False, False))


@pytest.mark.parametrize("name", ["clientCapabilities", "clientInfo", "logLevel"])
async def test_what_a_call_says_of_its_client_has_the_shape_that_the_protocol_gives_it(
    service: McpService, name: str
) -> None:
    sent = call("current", "add_task", {"title": "Buy milk"})
    sent["params"]["_meta"][f"io.modelcontextprotocol/{name}"] = 5
    async with service.http() as http:
        answer = await post(http, "current", sent, service.jwt())

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, INVALID_PARAMS)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []
