"""The published schemas match the service, are valid, and say what a client needs."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import Meta, Struct
from openapi_spec_validator import validate

from latchkey.config import BUILT_IN_AGENTS
from latchkey.domain.turn_event import EventName
from latchkey.interfaces.http.examples import example_of
from tests.schemas import DOCS, published

OUTDATED = "docs/openapi.json or docs/mcp.json does not match the service: run `make schemas` and review the diff."

CHAT_TOOLS = ("add_task", "list_tasks", "complete_task", "delete_task", "update_task")
UNPORTABLE = re.compile(r"\(\?[^:]|\\[upPkcbB]|\\x(?![0-7][0-9a-f])|\\\d")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return published()


@pytest.fixture(scope="module")
def openapi(generated: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(generated["openapi.json"])
    return document


@pytest.mark.parametrize("name", ["openapi.json", "mcp.json"])
def test_published_schema_matches_the_service(generated: dict[str, str], name: str) -> None:
    assert (DOCS / name).read_text() == generated[name], OUTDATED


def test_openapi_document_is_valid(openapi: dict[str, Any]) -> None:
    validate(openapi)


def test_tool_schemas_are_valid_and_reject_unknown_arguments(generated: dict[str, str]) -> None:
    tools = json.loads(generated["mcp.json"])["tools"]
    for tool in tools:
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            Draft202012Validator.check_schema(schema)

    assert len(tools) == 11
    assert {tool["inputSchema"]["additionalProperties"] for tool in tools} == {False}


def test_operation_has_a_readable_id_and_summary(openapi: dict[str, Any]) -> None:
    """The id is a verb and a noun, because generated clients use it as a name; the summary is one sentence."""
    ids = [operation["operationId"] for operation in operations(openapi)]

    assert len(ids) == len(set(ids))
    assert [id for id in ids if not re.fullmatch(r"chat|[a-z]+(_[a-z]+)+", id)] == []
    summaries = {operation["operationId"]: operation["summary"] for operation in operations(openapi)}
    assert [id for id, summary in summaries.items() if not re.fullmatch(r"[A-Z].*\.", summary)] == []


def test_error_responses_are_problem_details(openapi: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"$ref": "#/components/schemas/Problem"}}
    errors = [
        {name: content["schema"] for name, content in resolve(openapi, response)["content"].items()}
        for operation in operations(openapi)
        for status, response in operation["responses"].items()
        if status >= "4"
    ]

    assert len(errors) > 100
    assert [content for content in errors if content != problem] == []


def test_every_operation_has_an_example_of_its_request_and_of_each_response(openapi: dict[str, Any]) -> None:
    bodies = [
        (operation["operationId"], status, content)
        for operation in operations(openapi)
        for status, response in [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for content in resolve(openapi, response).get("content", {}).values()
    ]
    without = {(operation, status) for operation, status, content in bodies if examples_of(content) == []}

    assert len(bodies) > 100
    assert without == set()


def test_every_parameter_of_a_path_has_a_valid_example(openapi: dict[str, Any]) -> None:
    parameters = [resolve(openapi, each) for each in objects(openapi["paths"]) if is_parameter(resolve(openapi, each))]
    examples = [(each["schema"], each["example"]) for each in parameters if "example" in each]

    assert [each["name"] for each in parameters if each["in"] == "path" and "example" not in each] == []
    assert [example for schema, example in examples if not Draft202012Validator(schema).is_valid(example)] == []
    assert len(examples) > 30


def test_examples_are_valid_and_complete(openapi: dict[str, Any]) -> None:
    """In a response an example has every member that is always sent, and no member that the schema does not name."""
    contents = {json.dumps(node): node for node in objects(openapi) if "schema" in node and examples_of(node)}
    errors = [
        f"{error.json_path}: {error.message}"
        for content in contents.values()
        for example in examples_of(content)
        for error in Draft202012Validator(
            {**closed(content["schema"]), "components": closed(openapi["components"])},
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        ).iter_errors(example)
    ]

    assert len(contents) > 30
    assert errors == []


def test_example_is_made_from_the_schema_of_an_app() -> None:
    class Stop(Struct):
        name: Annotated[str, Meta(examples=["Oak Street"])]
        at: Annotated[datetime, Meta(tz=True)]
        platform: int | None

    class Trip(Struct):
        id: UUID
        kind: Literal["bus", "tram"]
        stops: list[Stop]

    (schema,), schemas = msgspec.json.schema_components([Trip], ref_template="#/components/schemas/{name}")
    example = example_of(schema, schemas)

    assert msgspec.convert(example, Trip).stops[0].name == "Oak Street"


def test_response_has_one_media_type(openapi: dict[str, Any]) -> None:
    """`openapi-typescript` makes a union of the types of several, so that no field can be read without a cast."""
    responses = [response for operation in operations(openapi) for response in operation["responses"].values()]
    media_types = [list(resolve(openapi, response).get("content", {})) for response in responses]

    assert [names for names in media_types if len(names) > 1] == []


def test_chat_publishes_json_and_describes_its_event_stream(openapi: dict[str, Any]) -> None:
    """With the headers that a client needs to retry a message and to resume a stream."""
    chat = openapi["paths"]["/api/{user_id}/chat"]["post"]
    events = openapi["paths"]["/api/{user_id}/turns/{turn_id}/events"]["get"]
    codes = {
        code
        for response in chat["responses"].values()
        for code in re.findall(r"^`([a-z-]+)`:", resolve(openapi, response)["description"], re.MULTILINE)
    }

    assert list(chat["responses"]["200"]["content"]) == ["application/json"]
    assert {"`Accept: text/event-stream`", "`StreamedEvent`"} <= code_spans(chat["responses"]["200"]["description"])
    assert list(events["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Idempotency-Replayed" in chat["responses"]["200"]["headers"]
    assert parameters(chat) == {"Idempotency-Key": "header"}
    assert parameters(events) == {"turn_id": "path", "after": "query", "Last-Event-ID": "header"}
    assert {"turn-in-progress", "turn-cancelled", "idempotency-mismatch", "draining", "turn-interrupted"} < codes


def test_request_bodies_reject_unknown_fields(openapi: dict[str, Any]) -> None:
    bodies = [operation["requestBody"]["content"] for operation in operations(openapi) if "requestBody" in operation]
    schemas = [resolve(openapi, media["schema"]) for body in bodies for media in body.values()]

    assert len(schemas) > 5
    assert {schema["additionalProperties"] for schema in schemas} == {False}


def test_text_schema_rejects_what_the_service_rejects(openapi: dict[str, Any]) -> None:
    """But lone surrogates: portable patterns cannot express them. `test_invalid_input` sends them to the service."""
    title = openapi["components"]["schemas"]["NewTask"]["properties"]["title"]
    invalid = ["", " ", "a\x00b", "a" * 201]

    assert [text for text in invalid if Draft202012Validator(title).is_valid(text)] == []
    assert Draft202012Validator(title).is_valid("Buy milk 🥛")


def test_published_patterns_are_portable(openapi: dict[str, Any]) -> None:
    """They compile in Python, RE2 (no look-around, no Unicode escapes) and JavaScript without Unicode mode (ASCII)."""
    patterns = {node["pattern"] for node in objects(openapi) if isinstance(node.get("pattern"), str)}

    assert len(patterns) >= 5
    assert [pattern for pattern in patterns if not pattern.isascii() or UNPORTABLE.search(pattern)] == []
    for pattern in patterns:
        re.compile(pattern)


def test_tool_schemas_have_no_patterns_and_no_large_lengths(generated: dict[str, str]) -> None:
    """Model servers compile them to a grammar, and MCP clients compile patterns with their own engines."""
    schemas = list(objects(json.loads(generated["mcp.json"])["tools"]))

    assert [schema for schema in schemas if "pattern" in schema] == []
    assert [schema for schema in schemas if schema.get("maxLength", 0) > 1000] == []


@pytest.mark.parametrize("name", ["openapi.json", "mcp.json"])
def test_enums_have_a_type(generated: dict[str, str], name: str) -> None:
    enums = [node for node in objects(json.loads(generated[name])) if isinstance(node.get("enum"), list)]

    assert len(enums) > 3
    assert [enum for enum in enums if "type" not in enum] == []


def test_bodies_have_no_defaults(openapi: dict[str, Any]) -> None:
    """`openapi-typescript` makes a property with a default required."""
    schemas = openapi["components"]["schemas"]

    assert [node for node in objects(schemas) if "default" in node] == []
    assert schemas["NewArtifact"]["properties"]["artifact_type"]["description"] == "Default: `generated_file`."


def test_response_fields_that_are_always_sent_are_required(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    is_request = re.compile("^New|Changes$|Revision$").search
    optional = {
        name: fields
        for name, schema in schemas.items()
        if not is_request(name) and (fields := schema.get("properties", {}).keys() - set(schema.get("required", ())))
    }

    assert optional == {
        "Problem": {"errors", "turn_id", "conversation_id", "same_request", "conflicts"},
        "ToolCall": {"omitted"},
        "TurnError": {"retry_after"},
    }


def test_streamed_event_is_a_union_of_named_schemas_by_event(openapi: dict[str, Any]) -> None:
    union = openapi["components"]["schemas"]["StreamedEvent"]["oneOf"]
    data = {each["properties"]["event"]["const"]: resolve(openapi, each["properties"]["data"]) for each in union}

    assert data.keys() == set(get_args(EventName))
    assert [name for name, schema in data.items() if not {"turn_id", "seq"} <= set(schema["required"])] == []
    assert data["turn.failed"]["title"] == "TurnFailedEvent"
    assert data["turn.failed"]["properties"].keys() == {"turn_id", "seq", "code", "detail"}


def test_event_stream_has_the_schema_of_its_data(openapi: dict[str, Any]) -> None:
    """`@hey-api/openapi-ts` parses the `data` of each event with the schema of the media type."""
    success = openapi["paths"]["/api/{user_id}/turns/{turn_id}/events"]["get"]["responses"]["200"]
    schema = resolve(openapi, success["content"]["text/event-stream"]["schema"])
    union = openapi["components"]["schemas"]["StreamedEvent"]["oneOf"]

    assert schema["anyOf"] == [each["properties"]["data"] for each in union]


def test_codes_agents_and_artifact_types_are_enums(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    fields = {
        "ProblemCode": [("Problem", "code"), ("TurnError", "code"), ("TurnFailedEvent", "code")],
        "AgentName": [("PublishedTurn", "agent"), ("ChatAnswer", "agent"), ("TurnStartedEvent", "agent")],
        "ArtifactType": [(name, "artifact_type") for name in ("Artifact", "ArtifactReference", "ArtifactCreatedEvent")],
    }

    for vocabulary, uses in fields.items():
        assert {json.dumps(schemas[name]["properties"][field]) for name, field in uses} == {
            json.dumps({"$ref": f"#/components/schemas/{vocabulary}"})
        }
    values = {name: set(schemas[name]["enum"]) for name in fields}
    assert values["AgentName"] == set(BUILT_IN_AGENTS)
    assert values["ArtifactType"] == {"brd", "generated_file"}
    assert {"unauthenticated", "turn-in-progress", "model-bad-response", "internal"} < values["ProblemCode"]


@pytest.mark.parametrize(("names", "max_bytes"), [(CHAT_TOOLS, 2300), (("save_artifact",), 650)])
def test_tools_offered_to_models_are_small(generated: dict[str, str], names: tuple[str, ...], max_bytes: int) -> None:
    """Every request of a turn contains them. With patterns, titles and defaults of null they were a quarter larger."""
    tools = [tool for tool in json.loads(generated["mcp.json"])["tools"] if tool["name"] in names]
    offered = [
        {"name": tool["name"], "description": tool["description"], "parameters": tool["inputSchema"]} for tool in tools
    ]

    assert len(json.dumps(offered, separators=(",", ":"))) <= max_bytes


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        yield from objects(part)


def is_parameter(node: dict[str, Any]) -> bool:
    return {"name", "in", "schema"} <= node.keys()


def examples_of(content: dict[str, Any]) -> list[Any]:
    """Return the examples of a media type."""
    named = [example["value"] for example in content.get("examples", {}).values()]
    return [*named, content["example"]] if "example" in content else named


def closed(node: Any) -> Any:
    """Return the schema so that it refuses members that it does not name."""
    if isinstance(node, list):
        return [closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    changed = {name: closed(part) for name, part in node.items()}
    is_object = changed.get("type") == "object" and "properties" in changed
    return {"additionalProperties": False, **changed} if is_object else changed


def code_spans(text: str) -> set[str]:
    return set(re.findall(r"`[^`]+`", text))


def parameters(operation: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["in"] for each in operation["parameters"] if "name" in each}


def operations(openapi: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for methods in openapi["paths"].values() for operation in methods.values())


def resolve(openapi: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for name in node["$ref"].split("/")[1:] if "$ref" in node else []:
        openapi = openapi[name]
    return openapi if "$ref" in node else node
