"""Bad input for every tool of `tools/list`, and in the envelope around it: refused in words, and nothing is stored.

What is sent is made from the published schemas, so a tool that is added is covered too.
"""

import json
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from latchkey.application.artifacts import list_artifacts
from latchkey.application.tasks import list_tasks
from latchkey.interfaces.mcp.tools import TOOLS
from tests.integration.mcp.jsonrpc import call, headers, message, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, McpService
from tests.support.schema_examples import example, invalid_bodies

IDS: list[Any] = [1.5, True, [], {}, [1]]
METHODS: list[Any] = [None, 5, True, [], {}, "", "x" * 100_000, "\x00", "tools/call\n", "TOOLS/LIST", "__init__", "é"]
VERSIONS: list[Any] = [None, 2.0, "1.0", "2", "", []]
PARAMS: list[Any] = [5, "x", True, [], ["add_task", {"title": "x"}]]
ENVELOPES: list[Any] = [
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


def told(answer: httpx2.Response) -> tuple[str, str]:
    """In which way it was refused, and the words."""
    said = answer.json()
    if "error" in said:
        return "error", said["error"]["message"]
    if said["result"].get("isError"):
        failure = json.loads(said["result"]["content"][0]["text"])
        return failure["code"], failure["detail"]
    return "done", ""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("protocol", ["current", "older"])
async def test_arguments_that_are_not_what_they_should_be(service: McpService, protocol: str, tool: str) -> None:
    """A tool error that the model can read, or, where it is no JSON, an error of the protocol."""
    await service.artifact()
    schema = TOOLS[tool].listing["inputSchema"]
    judge = Draft202012Validator(schema)
    before = await stored(service)
    good = json.dumps(call(protocol, tool, "ARGUMENTS")).encode()
    answers = {}
    async with service.http() as http:
        for name, arguments in invalid_bodies(schema, schema):
            if allowed(arguments, judge):
                continue
            body = good.replace(b'"ARGUMENTS"', arguments or b" ")
            answers[name] = await post(http, protocol, call(protocol, tool), service.jwt(), body=body)

    assert len(answers) > 20
    assert {name: one.status_code for name, one in answers.items() if one.status_code not in {200, 400, 413}} == {}
    assert {
        name: told(one)[0] for name, one in answers.items() if told(one)[0] not in {"invalid", "error", "too-large"}
    } == {}
    assert [name for name, one in answers.items() if not told(one)[1] or "Internal" in told(one)[1]] == []
    assert await stored(service) == before


def allowed(arguments: bytes, judge: Draft202012Validator) -> bool:
    """Whether it is right after all: null for no arguments where none are needed, a name twice (the last counts)."""
    try:
        return judge.is_valid(json.loads(arguments) or {})
    except (ValueError, RecursionError):
        return False


def spoiled(protocol: str) -> dict[str, Any]:
    """Envelopes that differ from a good call of `add_task` in one thing."""
    good = call(protocol, "add_task", {"title": "x"})
    members: dict[str, list[Any]] = {"id": IDS, "method": METHODS, "params": PARAMS, "jsonrpc": VERSIONS}
    inner: dict[str, list[Any]] = {"name": [None, 5, [], {}, "", "\x00"], "_meta": [5, "x", [], [1]]}
    return {
        **{f"{name} {one!r:.30}": {**good, name: one} for name, wrong in members.items() for one in wrong},
        **{
            f"{name} {one!r:.30}": {**good, "params": {**good["params"], name: one}}
            for name, wrong in inner.items()
            for one in wrong
        },
        **{f"envelope {one!r:.30}": one for one in ENVELOPES},
        "no jsonrpc": {name: value for name, value in good.items() if name != "jsonrpc"},
        "a batch": [good, good],
    }


async def test_envelopes_that_are_not_what_they_should_be(service: McpService, protocol: str) -> None:
    answers = {}
    async with service.http() as http:
        for name, one in spoiled(protocol).items():
            answers[name] = await post(
                http, protocol, call(protocol, "add_task"), service.jwt(), body=json.dumps(one).encode()
            )
        alive = await post(http, protocol, message(protocol, "tools/list"), service.jwt())

    assert {name: one.status_code for name, one in answers.items() if one.status_code >= 500} == {}
    refused = {name: one for name, one in answers.items() if one.content}
    assert {name: one.text for name, one in refused.items() if told(one)[0] != "error"} == {}
    assert {name: one.text for name, one in refused.items() if one.json()["error"]["code"] == -32603} == {}
    assert await stored(service) == []
    assert len(alive.json()["result"]["tools"]) == len(TOOLS)


async def test_an_id_comes_back_as_it_was(service: McpService, protocol: str) -> None:
    ids = [0, -1, 2**53, "", "x" * 1000, "é🥛"]
    async with service.http() as http:
        answers = [await post(http, protocol, {**call(protocol, "list_tasks"), "id": id}, service.jwt()) for id in ids]

    assert [(one.status_code, one.json()["id"]) for one in answers] == [(200, id) for id in ids]


async def test_a_cursor_that_was_never_given(service: McpService, protocol: str) -> None:
    cursors: list[Any] = ["x", "artifacts:x", "conversations:\x00", "x" * 100_000, "tasks:", 5, [], "é:"]
    async with service.http() as http:
        answers = [
            await post(http, protocol, message(protocol, "resources/list", {"cursor": cursor}), service.jwt())
            for cursor in cursors
        ]

    assert [one.json()["error"]["code"] for one in answers] == [-32602] * len(cursors)


async def test_an_address_that_is_none(service: McpService, protocol: str) -> None:
    """Also of something that is there, written as addresses are not written."""
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
        answers = []
        for uri in wrong:
            sent = message(protocol, "resources/read", {"uri": uri})
            named = uri if uri.isprintable() else known
            given = headers(protocol, message(protocol, "resources/read", {"uri": named}), service.jwt())
            answers.append(await http.post(MCP_URL, json=sent, headers=given))

    assert [(one.text[:200]) for one in answers if "error" not in one.json() or one.status_code >= 500] == []


async def test_a_body_of_another_kind(service: McpService, protocol: str) -> None:
    sent = call(protocol, "add_task", {"title": "x"})
    kinds = ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"]
    async with service.http() as http:
        answers = [
            await http.post(
                MCP_URL, json=sent, headers={**headers(protocol, sent, service.jwt()), "content-type": kind}
            )
            for kind in kinds
        ]

    assert [answer.status_code // 100 for answer in answers] == [4] * len(kinds)
    assert await stored(service) == []


def test_what_is_right_is_right() -> None:
    """What is made wrong was right before, of every tool."""
    for tool in TOOLS.values():
        schema = tool.listing["inputSchema"]
        Draft202012Validator(schema).validate(example(schema, schema))
