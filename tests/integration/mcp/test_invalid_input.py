"""Invalid arguments for every tool, and invalid JSON-RPC messages: refused with a reason, and nothing is stored.

The arguments are generated from the published schemas, so new tools are covered.
"""

import json
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from latchkey.application.artifacts import list_artifacts
from latchkey.application.tasks import list_tasks
from latchkey.bootstrap.registry import BUILT_IN, Registry
from tests.integration.mcp.jsonrpc import call, headers, message, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, McpService
from tests.support.schema_examples import example, invalid_bodies

IDS: list[Any] = [1.5, True, [], {}, [1]]
TOOLS = Registry.of(*BUILT_IN).tools
METHODS: list[Any] = [None, 5, True, [], {}, "", "x" * 100_000, "\x00", "tools/call\n", "TOOLS/LIST", "__init__", "é"]
VERSIONS: list[Any] = [None, 2.0, "1.0", "2", "", []]
PARAMS: list[Any] = [5, "x", True, [], ["add_task", {"title": "x"}]]
MESSAGES: list[Any] = [
    None,
    5,
    "x",
    True,
    [],
    {},
    [[]],
    [None],
    {"jsonrpc": "2.0"},
    {"id": 1},
    {"method": "tools/list"},
]


async def stored(service: McpService) -> list[Any]:
    tasks = await service.dispatcher.call(ME, list_tasks)
    return [*tasks.items, *(await service.dispatcher.call(ME, list_artifacts)).items]


def error_of(response: httpx2.Response) -> tuple[str, str]:
    """Return the code of the tool error or `error` for a protocol error, and its text."""
    payload = response.json()
    if "error" in payload:
        return "error", payload["error"]["message"]
    if payload["result"].get("isError"):
        failure = json.loads(payload["result"]["content"][0]["text"])
        return failure["code"], failure["detail"]
    return "done", ""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("protocol", ["current", "older"])
async def test_invalid_arguments_are_refused_and_nothing_is_stored(
    service: McpService, protocol: str, tool: str
) -> None:
    """With a tool error that the model can read, or, if they are not JSON, with a protocol error."""
    await service.artifact()
    schema = TOOLS[tool].listing["inputSchema"]
    validator = Draft202012Validator(schema)
    before = await stored(service)
    good = json.dumps(call(protocol, tool, "ARGUMENTS")).encode()
    responses = {}
    async with service.http() as http:
        for name, arguments in invalid_bodies(schema, schema):
            if is_valid(arguments, validator):
                continue
            body = good.replace(b'"ARGUMENTS"', arguments or b" ")
            responses[name] = await post(http, protocol, call(protocol, tool), service.jwt(), body=body)

    assert len(responses) > 20
    assert {
        name: response.status_code
        for name, response in responses.items()
        if response.status_code not in {200, 400, 413}
    } == {}
    assert {
        name: error_of(response)[0]
        for name, response in responses.items()
        if error_of(response)[0] not in {"invalid", "error", "too-large"}
    } == {}
    assert [
        name for name, response in responses.items() if not error_of(response)[1] or "Internal" in error_of(response)[1]
    ] == []
    assert await stored(service) == before


def is_valid(arguments: bytes, validator: Draft202012Validator) -> bool:
    """Whether the arguments are valid after all: null if none are required, or a duplicate name (the last counts)."""
    try:
        return validator.is_valid(json.loads(arguments) or {})
    except (ValueError, RecursionError):
        return False


def invalid_messages(protocol: str) -> dict[str, Any]:
    """Return messages that differ from a valid call of `add_task` in one point."""
    good = call(protocol, "add_task", {"title": "x"})
    members: dict[str, list[Any]] = {"id": IDS, "method": METHODS, "params": PARAMS, "jsonrpc": VERSIONS}
    inner: dict[str, list[Any]] = {"name": [None, 5, [], {}, "", "\x00"], "_meta": [5, "x", [], [1]]}
    return {
        **{f"{name} {value!r:.30}": {**good, name: value} for name, values in members.items() for value in values},
        **{
            f"{name} {value!r:.30}": {**good, "params": {**good["params"], name: value}}
            for name, values in inner.items()
            for value in values
        },
        **{f"message {value!r:.30}": value for value in MESSAGES},
        "no jsonrpc": {name: value for name, value in good.items() if name != "jsonrpc"},
        "a batch": [good, good],
    }


async def test_invalid_messages_are_refused_and_nothing_is_stored(service: McpService, protocol: str) -> None:
    responses = {}
    async with service.http() as http:
        for name, invalid in invalid_messages(protocol).items():
            responses[name] = await post(
                http, protocol, call(protocol, "add_task"), service.jwt(), body=json.dumps(invalid).encode()
            )
        alive = await post(http, protocol, message(protocol, "tools/list"), service.jwt())

    assert {name: response.status_code for name, response in responses.items() if response.status_code >= 500} == {}
    refused = {name: response for name, response in responses.items() if response.content}
    assert {name: response.text for name, response in refused.items() if error_of(response)[0] != "error"} == {}
    assert {
        name: response.text for name, response in refused.items() if response.json()["error"]["code"] == -32603
    } == {}
    assert await stored(service) == []
    assert len(alive.json()["result"]["tools"]) == len(TOOLS)


async def test_response_repeats_the_request_id(service: McpService, protocol: str) -> None:
    ids = [0, -1, 2**53, "", "x" * 1000, "é🥛"]
    async with service.http() as http:
        responses = [
            await post(http, protocol, {**call(protocol, "list_tasks"), "id": id}, service.jwt()) for id in ids
        ]

    assert [(response.status_code, response.json()["id"]) for response in responses] == [(200, id) for id in ids]


async def test_resources_list_invalid_cursor_is_invalid_params(service: McpService, protocol: str) -> None:
    cursors: list[Any] = ["x", "artifacts:x", "conversations:\x00", "x" * 100_000, "tasks:", 5, [], "é:"]
    async with service.http() as http:
        responses = [
            await post(http, protocol, message(protocol, "resources/list", {"cursor": cursor}), service.jwt())
            for cursor in cursors
        ]

    assert [response.json()["error"]["code"] for response in responses] == [-32602] * len(cursors)


async def test_resources_read_invalid_uri_is_an_error(service: McpService, protocol: str) -> None:
    """Also a similar spelling of the URI of an existing resource."""
    artifact = await service.artifact()
    known = f"latchkey://artifacts/{artifact.id}"
    wrong = [
        *("", "x", "\x00", "file:///etc/passwd", "http://127.0.0.1/", "latchkey://artifacts/", "latchkey:artifacts"),
        *(
            f"{known}/",
            f"{known}?x",
            f"{known}#x",
            f"{known}\n",
            known.upper(),
            f" {known}",
            f"{known}\x00",
            known[:-1],
        ),
        *("latchkey://artifacts/../tasks", "latchkey://tasks/1", "x" * 100_000, "latchkey://artifacts/" + "-" * 36),
    ]
    async with service.http() as http:
        responses = []
        for uri in wrong:
            request = message(protocol, "resources/read", {"uri": uri})
            named = uri if uri.isprintable() else known
            fields = headers(protocol, message(protocol, "resources/read", {"uri": named}), service.jwt())
            responses.append(await http.post(MCP_URL, json=request, headers=fields))

    assert [
        (response.text[:200]) for response in responses if "error" not in response.json() or response.status_code >= 500
    ] == []


async def test_body_of_another_content_type_is_refused(service: McpService, protocol: str) -> None:
    request = call(protocol, "add_task", {"title": "x"})
    kinds = ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"]
    async with service.http() as http:
        responses = [
            await http.post(
                MCP_URL, json=request, headers={**headers(protocol, request, service.jwt()), "content-type": kind}
            )
            for kind in kinds
        ]

    assert [response.status_code // 100 for response in responses] == [4] * len(kinds)
    assert await stored(service) == []


def test_examples_of_arguments_are_valid() -> None:
    """The invalid arguments above differ from valid ones, for every tool."""
    for tool in TOOLS.values():
        schema = tool.listing["inputSchema"]
        Draft202012Validator(schema).validate(example(schema, schema))
