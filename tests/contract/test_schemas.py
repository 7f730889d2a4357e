"""The published schemas are those of the service, and are what they claim to be."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.schemas import DOCS, published

HOW = "The schemas in docs/ are not those of the service: run `make schemas`, and look at what changed."


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return published()


@pytest.fixture(scope="module")
def openapi(now: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(now["openapi.json"])
    return found


@pytest.mark.parametrize("name", ["openapi.json", "mcp.json"])
def test_what_is_published_is_what_the_service_does(now: dict[str, str], name: str) -> None:
    assert (DOCS / name).read_text() == now[name], HOW


def test_the_one_of_http_is_openapi(openapi: dict[str, Any]) -> None:
    validate(openapi)


def test_those_of_the_tools_are_json_schemas_of_objects_that_take_nothing_else(now: dict[str, str]) -> None:
    tools = json.loads(now["mcp.json"])["tools"]
    for tool in tools:
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            Draft202012Validator.check_schema(schema)

    assert len(tools) == 8
    assert {tool["inputSchema"]["additionalProperties"] for tool in tools} == {False}


def test_every_operation_reads_well(openapi: dict[str, Any]) -> None:
    """Its id is a verb and a noun, which generated clients take for a name, and it says in a sentence what it does."""
    ids = [operation["operationId"] for operation in operations(openapi)]

    assert len(ids) == len(set(ids))
    assert [one for one in ids if not re.fullmatch(r"chat|[a-z]+(_[a-z]+)+", one)] == []
    assert [one["operationId"] for one in operations(openapi) if not re.fullmatch(r"[A-Z].*\.", one["summary"])] == []


def test_every_error_is_a_problem(openapi: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    errors = [
        resolved(openapi, response)["content"]
        for operation in operations(openapi)
        for status, response in operation["responses"].items()
        if status >= "4"
    ]

    assert len(errors) > 100
    assert [one for one in errors if one != problem] == []


def test_a_turn_is_published_as_json_and_as_events(openapi: dict[str, Any]) -> None:
    """With what makes a client able to send its message again, and to go on reading where it was."""
    chat = openapi["paths"]["/api/{user_id}/chat"]["post"]
    events = openapi["paths"]["/api/{user_id}/turns/{turn_id}/events"]["get"]
    codes = {
        code
        for response in chat["responses"].values()
        for code in re.findall(r"^`([a-z-]+)`:", resolved(openapi, response)["description"], re.MULTILINE)
    }

    assert list(chat["responses"]["200"]["content"]) == ["application/json", "text/event-stream"]
    assert list(events["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Idempotency-Replayed" in chat["responses"]["200"]["headers"]
    assert parameters(chat) == {"Idempotency-Key": "header"}
    assert parameters(events) == {"turn_id": "path", "after": "query", "Last-Event-ID": "header"}
    assert {"turn-in-progress", "turn-cancelled", "idempotency-mismatch", "draining", "turn-interrupted"} < codes


def test_bodies_take_nothing_that_is_not_named(openapi: dict[str, Any]) -> None:
    bodies = [operation["requestBody"]["content"] for operation in operations(openapi) if "requestBody" in operation]
    schemas = [resolved(openapi, media["schema"]) for body in bodies for media in body.values()]

    assert len(schemas) > 5
    assert {schema["additionalProperties"] for schema in schemas} == {False}


def test_a_client_can_tell_beforehand_that_a_text_will_be_refused(openapi: dict[str, Any]) -> None:
    title = openapi["components"]["schemas"]["NewTask"]["properties"]["title"]
    refused = ["", " ", "a\x00b", "\ud800", "a" * 201]

    assert [text for text in refused if Draft202012Validator(title).is_valid(text)] == []
    assert Draft202012Validator(title).is_valid("Buy milk 🥛")


def parameters(operation: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["in"] for one in operation["parameters"] if "name" in one}


def operations(openapi: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for methods in openapi["paths"].values() for operation in methods.values())


def resolved(openapi: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for name in node["$ref"].split("/")[1:] if "$ref" in node else []:
        openapi = openapi[name]
    return openapi if "$ref" in node else node
