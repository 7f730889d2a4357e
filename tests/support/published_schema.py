"""Checks responses against docs/openapi.json: status, headers, media type and body."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from jsonschema_rs import Draft202012Validator, Registry

EVENTS = "text/event-stream"
OPTIONAL_HEADERS = {"Retry-After", "Idempotency-Replayed"}
"""Headers that a response may lack although they are published."""
DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())


async def check_response(response: httpx2.Response) -> None:
    """Raises `AssertionError` if the response is not published for its operation."""
    operation = _operation(response.request.method, response.request.url.path)
    if operation is None:
        return  # not a published route: MCP, or a path that a test made up
    published = operation["responses"].get(str(response.status_code))
    assert published is not None, f"{operation['operationId']} answered with unpublished {response.status_code}"
    _check_head(response, _resolved(published))
    if _media_type(response) != EVENTS:  # `event_stream` checks these as they are read
        _check_body(response, _resolved(published), (await response.aread()))


def _check_head(response: httpx2.Response, published: dict[str, Any]) -> None:
    required = published["headers"].keys() - OPTIONAL_HEADERS
    assert required <= {name for name in required if name.lower() in response.headers}
    assert _media_type(response) in {*published.get("content", {"": {}}), *_described_media_types(published)}


def _check_body(response: httpx2.Response, published: dict[str, Any], body: bytes) -> None:
    content = published.get("content", {})
    if not content:
        assert body == b""
        return
    media_type = _media_type(response)
    document = json.loads(body) if media_type.endswith("json") else body.decode()
    _validator(json.dumps(content[media_type]["schema"])).validate(document)


def _described_media_types(published: dict[str, Any]) -> list[str]:
    return re.findall(r"`Accept: ([^`]+)`", published["description"])


def _media_type(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0]


@cache
def _operations() -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    return [
        (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def _operation(method: str, path: str) -> dict[str, Any] | None:
    matches = (
        operation
        for its_method, pattern, operation in _operations()
        if its_method == method and pattern.fullmatch(path)
    )
    return next(matches, None)


def _resolved(published: dict[str, Any]) -> dict[str, Any]:
    name = published.get("$ref", "").rpartition("/")[2]
    response: dict[str, Any] = DOCUMENT["components"]["responses"][name] if name else published
    return response


@cache
def _validator(schema: str) -> Draft202012Validator:
    """A strict validator: a member that the schema does not name is an error too.

    One in Rust, because the tests of a service check thousands of responses.
    """
    closed = json.loads(json.dumps(DOCUMENT), object_hook=_closed)
    registry = Registry([("urn:latchkey", closed)])
    text = schema.replace('"#/', '"urn:latchkey#/')
    return Draft202012Validator(json.loads(text), registry=registry, validate_formats=True)


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    if node.get("title") == "AgentName":  # tests serve apps with agents of their own
        return {"type": "string"}
    return {"additionalProperties": False, **node} if node.get("type") == "object" and "properties" in node else node
