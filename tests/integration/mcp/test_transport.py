"""Streamable HTTP: the checks of a message before it is run, and the responses, over our transport and the SDK's."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
)

from latchkey.application.tasks import list_tasks
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.interfaces.mcp.http.endpoint import Transport
from latchkey.interfaces.mcp.http.transport import StatelessTransport
from tests.integration.mcp.jsonrpc import call, headers, message, notification, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, McpService
from tests.integration.mcp.sdk_transport import SdkTransport

ADD = call("current", "add_task", {"title": "Buy milk"})
TRANSPORTS: dict[str, Callable[[Server[Any]], Transport]] = {"ours": StatelessTransport, "SDK": SdkTransport}


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def service(sqlite_url: str, transport: str) -> AsyncIterator[McpService]:
    """The service with either transport."""
    engine = create_engine(sqlite_url)
    yield McpService(SqlUnitsOfWork(engine), create_transport=TRANSPORTS[transport])
    await engine.dispose()


@pytest.mark.parametrize("accept", ["", "text/event-stream", "text/html, image/*", "application/jsonl"])
async def test_accept_header_without_json_is_406_and_has_no_effect(
    service: McpService, transport: str, protocol: str, accept: str
) -> None:
    """The SDK's transport sends no body with the 406 of the current protocol."""
    request = call(protocol, "add_task", {"title": "Buy milk"})
    async with service.http() as http:
        response = await http.post(
            MCP_URL, json=request, headers=headers(protocol, request, service.jwt()) | {"accept": accept}
        )

    assert response.status_code == 406
    assert (transport, protocol) == ("SDK", "current") or response.json()["error"]["code"] == INVALID_REQUEST
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", "Application/*;q=0.5", "text/html, application/json ;q=1"]
)
async def test_accept_header_with_json_in_any_form_is_accepted(service: McpService, protocol: str, accept: str) -> None:
    request = call(protocol, "list_tasks")
    async with service.http() as http:
        response = await http.post(
            MCP_URL, json=request, headers=headers(protocol, request, service.jwt()) | {"accept": accept}
        )

    assert response.json()["result"]["isError"] is False


@pytest.mark.parametrize("transport", ["ours"], indirect=True)
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/jsonl",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        'application/json; charset="latin1"',
    ],
)
async def test_content_type_other_than_json_is_415(service: McpService, protocol: str, content_type: str) -> None:
    """The SDK's transport accepts some of these types, and refuses the others with 400 and plain text."""
    request = call(protocol, "add_task", {"title": "Buy milk"})
    async with service.http() as http:
        response = await http.post(
            MCP_URL, json=request, headers=headers(protocol, request, service.jwt()) | {"content-type": content_type}
        )

    assert (response.status_code, response.json()["error"]["code"]) == (415, INVALID_REQUEST)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"'])
async def test_content_type_with_utf_8_charset_is_accepted(service: McpService, protocol: str, charset: str) -> None:
    request = call(protocol, "list_tasks")
    content_type = {"content-type": f"application/json; charset={charset}"}
    async with service.http() as http:
        response = await http.post(
            MCP_URL, json=request, headers=headers(protocol, request, service.jwt()) | content_type
        )

    assert response.json()["result"]["isError"] is False


async def test_notification_is_202_without_body(service: McpService, protocol: str) -> None:
    async with service.http() as http:
        response = await post(http, protocol, notification("notifications/initialized"), service.jwt())

    assert (response.status_code, response.content) == (202, b"")


@pytest.mark.parametrize(
    "client_response", [{"id": 1, "result": {}}, {"id": 1, "error": {"code": 1, "message": "No."}}], ids=str
)
async def test_client_response_without_request_is_accepted_by_older_protocols_only(
    service: McpService, protocol: str, client_response: dict[str, Any]
) -> None:
    """The current protocol forbids clients to send one."""
    body = json.dumps({"jsonrpc": "2.0", **client_response}).encode()
    async with service.http() as http:
        response = await post(http, protocol, message(protocol, "ping"), service.jwt(), body=body)

    assert response.status_code == (400 if protocol == "current" else 202)


@pytest.mark.parametrize(
    "wrong_header",
    [
        {"mcp-method": "tools/list"},
        {"mcp-name": "list_tasks"},
        {"mcp-protocol-version": "2027-01-01"},
        {"mcp-name": "=?base64?!?="},
    ],
    ids=str,
)
async def test_header_that_differs_from_message_is_header_mismatch(
    service: McpService, wrong_header: dict[str, str]
) -> None:
    """A proxy that routes by the headers and this service must not read different requests."""
    async with service.http() as http:
        response = await http.post(MCP_URL, json=ADD, headers=headers("current", ADD, service.jwt()) | wrong_header)

    assert (response.status_code, response.json()["error"]["code"], response.json()["id"]) == (400, HEADER_MISMATCH, 1)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


async def test_duplicate_routing_header_is_header_mismatch(service: McpService) -> None:
    duplicated = [*headers("current", ADD, service.jwt()).items(), ("mcp-name", "add_task")]
    async with service.http() as http:
        response = await http.post(MCP_URL, json=ADD, headers=duplicated)

    assert (response.status_code, response.json()["error"]["code"]) == (400, HEADER_MISMATCH)


async def test_unsupported_protocol_version_error_lists_supported_versions(service: McpService) -> None:
    request = message("current", "tools/list")
    request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2027-01-01"
    fields = headers("current", request, service.jwt()) | {"mcp-protocol-version": "2027-01-01"}
    async with service.http() as http:
        responses = [await http.post(MCP_URL, json=body, headers=fields) for body in (request, notification("x"))]

    assert [response.status_code for response in responses] == [400, 400]
    assert [response.json()["error"]["code"] for response in responses] == [UNSUPPORTED_PROTOCOL_VERSION] * 2
    assert responses[0].json()["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2027-01-01"}


async def test_unknown_method_is_method_not_found(service: McpService, protocol: str) -> None:
    """With the current protocol the HTTP status is 404 too."""
    async with service.http() as http:
        response = await post(http, protocol, message(protocol, "prompts/list"), service.jwt())

    assert response.status_code == (404 if protocol == "current" else 200)
    assert response.json()["error"]["code"] == METHOD_NOT_FOUND


async def test_tool_result_text_equals_structured_content(service: McpService, protocol: str) -> None:
    """Only the current protocol marks a result as complete."""
    async with service.http() as http:
        await post(http, protocol, call(protocol, "add_task", {"title": 'Milk: "2 l" \\ é🥛'}), service.jwt())
        result = (await post(http, protocol, call(protocol, "list_tasks"), service.jwt())).json()["result"]

    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert result["structuredContent"]["items"][0]["title"] == 'Milk: "2 l" \\ é🥛'
    assert ("resultType" in result, "_meta" in result) == ((True, True) if protocol == "current" else (False, False))


@pytest.mark.parametrize("name", ["clientCapabilities", "clientInfo", "logLevel"])
async def test_call_with_invalid_client_metadata_is_invalid_params(service: McpService, name: str) -> None:
    request = call("current", "add_task", {"title": "Buy milk"})
    request["params"]["_meta"][f"io.modelcontextprotocol/{name}"] = 5
    async with service.http() as http:
        response = await post(http, "current", request, service.jwt())

    assert (response.status_code, response.json()["error"]["code"]) == (400, INVALID_PARAMS)
    assert (await service.dispatcher.call(ME, list_tasks)).items == []
