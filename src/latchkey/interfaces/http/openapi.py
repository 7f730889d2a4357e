"""Generates the OpenAPI 3.1 document from the handlers: types from msgspec, texts from docstrings."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from inspect import getdoc
from typing import Any

import msgspec
from litestar import Litestar
from litestar.enums import ParamType

from latchkey.domain import errors
from latchkey.domain.credentials import USER_ID_PATTERN, RegisteredGrants
from latchkey.domain.errors import Failure
from latchkey.interfaces.errors import Misdirected, status_of
from latchkey.interfaces.http.event_stream import MEDIA_TYPE as EVENT_STREAM
from latchkey.interfaces.http.examples import PARAMETERS, example_of, stream_examples
from latchkey.interfaces.http.litestar_internals import (
    Operation,
    Parameter,
    body_of,
    operations_of,
    parameters_of,
    response_headers_of,
    response_type_of,
    security_of,
    tags_of,
)
from latchkey.interfaces.http.openapi_components import Components
from latchkey.interfaces.http.problems import MEDIA_TYPE, InternalError, Problem, problem_of
from latchkey.interfaces.http.requests import JSON, media_types_of

PATH = "/schema/openapi.json"

FailureType = type[Failure]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_CONSTRAINTS = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_MAX_SHARED_FAILURES = 2
"""A response for more failures than this is defined in its operation, not among the shared components."""

_OF_ALL: tuple[FailureType, ...] = (errors.Malformed, Misdirected, errors.Forbidden, InternalError)
_OF_AUTHENTICATED: tuple[FailureType, ...] = (
    errors.Unauthenticated,
    errors.WrongUser,
    errors.Invalid,
    errors.Exhausted,
    errors.Unavailable,
)
_OF_BODIES: tuple[FailureType, ...] = (errors.Malformed, errors.TooLarge, errors.UnsupportedMediaType)
_OF_IDS: tuple[FailureType, ...] = (errors.NotFound,)
_OF_IF_MATCH: tuple[FailureType, ...] = (errors.Malformed, errors.StaleVersion)

_REQUEST_ID_REFERENCE = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_REQUEST_ID = {
    "description": "The id under which the request is logged: the value that the client sent, or a new one.",
    "schema": {"type": "string"},
}
_EXAMPLE_REQUEST_ID = "01a22770-5b19-7a3d-8f2e-1c0b9a8d7e6f"
_USER_ID = {
    "name": "user_id",
    "in": "path",
    "required": True,
    "description": "The owner of the data: the `sub` of the bearer token, or `me`, which stands for it. Any other user"
    " is refused.",
    "schema": {"type": "string", "pattern": USER_ID_PATTERN},
    "example": PARAMETERS["user_id"],
}
_STREAMED_INSTEAD = (
    f"Success. With `Accept: {EVENT_STREAM}` the body is a stream of server-sent events instead: each is a"
    " `StreamedEvent`."
)
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The user's own JWT. A context token is accepted at /mcp only.",
}


def document(app: Litestar, grants: RegisteredGrants, agents: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of an application in which these grants and agents exist."""
    components = Components.of(grants, agents)
    paths: dict[str, dict[str, Any]] = {}
    operations = sorted(operations_of(app), key=lambda operation: _METHODS.index(operation.method))
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = describe(operation, components)
    for body in filter(None, (body_of(operation.handler) for operation in operations)):
        components.request_schema(body.annotation)  # of a type of both, not the response's: that requires more
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Latchkey",
            "version": version("latchkey-server"),
            "description": "The backend of an AI assistant: conversations, turns, to-do tasks, artifacts and context"
            " tokens of one user. MCP is served at /mcp.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.schemas.items())),
            "responses": dict(sorted(components.responses.items())),
            "parameters": {"user_id": _USER_ID},
            "headers": {"X-Request-Id": _REQUEST_ID},
            "securitySchemes": {"bearer": _BEARER},
        },
    }


def describe(operation: Operation, components: Components) -> dict[str, Any]:
    """Return the OpenAPI operation object. Its id is the handler's name, its description the handler's docstring."""
    handler = operation.handler
    summary, _, description = (getdoc(handler.fn) or "").partition("\n\n")
    described = {
        "operationId": handler.handler_name,
        "tags": tags_of(handler),
        "summary": summary,
        "description": description.replace("\n", " "),
        "security": security_of(handler),
        "parameters": _parameters(operation, components),
        "requestBody": _request_body(operation, components),
    }
    responses = {str(handler.status_code): _success(operation, components)}
    if handler.opt.get("revalidates"):
        responses["304"] = {"description": "The client has the current content.", "headers": _REQUEST_ID_REFERENCE}
    if accepted := handler.opt.get("accepted"):
        responses["202"] = _accepted(accepted, components)
    responses |= _failures(operation, components)
    return {name: value for name, value in described.items() if value} | {"responses": responses}


def _parameters(operation: Operation, components: Components) -> list[dict[str, Any]]:
    """Return the parameters. No handler declares the user of the path, who is the same in all operations."""
    is_of_user = "user_id" in operation.path_parameters
    shared = [{"$ref": "#/components/parameters/user_id"}] if is_of_user else []
    return shared + [_parameter(parameter, components) for parameter in parameters_of(operation.handler)]


def _parameter(parameter: Parameter, components: Components) -> dict[str, Any]:
    schema = components.schema(parameter.annotation)
    schema = dict(schema.get("anyOf", [schema])[0])  # an optional parameter may be left out; it may not be null
    for name, keyword in _CONSTRAINTS.items():
        if (limit := getattr(parameter.declared, name)) is not None:
            schema[keyword] = limit
    schema |= parameter.declared.schema_extra or {}
    if parameter.default is not None:
        schema["default"] = parameter.default
    described: dict[str, Any] = {"name": parameter.name, "in": parameter.location.value, "schema": schema}
    if parameter.declared.description:
        described["description"] = parameter.declared.description
    if parameter.name in PARAMETERS and parameter.location is not ParamType.QUERY:
        described["example"] = PARAMETERS[parameter.name]
    if parameter.location is ParamType.PATH:
        described["required"] = True
        described.setdefault("example", example_of(schema, components.schemas))
    return described


def _request_body(operation: Operation, components: Components) -> dict[str, Any] | None:
    body = body_of(operation.handler)
    if body is None:
        return None
    schema = components.request_schema(body.annotation)
    media = {"schema": schema, "example": example_of(schema, components.schemas)}
    return {"required": True, "content": dict.fromkeys(media_types_of(body.media_type), media)}


def _success(operation: Operation, components: Components) -> dict[str, Any]:
    headers = {
        name: {"description": description, "schema": {"type": "string"}}
        for name, description in response_headers_of(operation.handler).items()
    }
    response: dict[str, Any] = {"description": "Success.", "headers": {**_REQUEST_ID_REFERENCE, **headers}}
    if content := _content(operation, components):
        response["content"] = content
    if operation.handler.opt.get("streams") and EVENT_STREAM not in content:
        response["description"] = _STREAMED_INSTEAD
    return response


def _accepted(body_type: type, components: Components) -> dict[str, Any]:
    """Return the response of a request that is accepted and whose answer waits for the user."""
    schema = components.response_schema(body_type)
    media = {"schema": schema, "example": example_of(schema, components.schemas)}
    return {"description": "The turn waits for the user.", "headers": _REQUEST_ID_REFERENCE, "content": {JSON: media}}


def _content(operation: Operation, components: Components) -> dict[str, Any]:
    """Return the media type of a successful response with its schema.

    It is only one: generated clients make a union of the types of several, or call the operation as a stream only.
    """
    handler = operation.handler
    body_type = response_type_of(handler)
    if body_type is not None:
        media_type = handler.media_type.partition(";")[0] or JSON
        schema = components.response_schema(body_type)
        example, special = example_of(schema, components.schemas), handler.opt.get("example")
        if special is not None:
            example = {**example, **special} if isinstance(special, dict) else special
        return {media_type: {"schema": schema, "example": example}}
    if handler.opt.get("streams"):
        return {EVENT_STREAM: {"schema": components.event_schema(), "examples": stream_examples()}}
    return {}


def _failures(operation: Operation, components: Components) -> dict[str, Any]:
    """Return the responses of failures by status."""
    by_status: dict[int, list[FailureType]] = {}
    for failure in dict.fromkeys(_failure_types(operation)):
        by_status.setdefault(status_of(failure("")), []).append(failure)
    return {str(status): _failure_response(failures, components) for status, failures in sorted(by_status.items())}


def _failure_types(operation: Operation) -> list[FailureType]:
    """Return the failures that follow from the shape of an operation, and those that its handler declares."""
    handler = operation.handler
    failures = [*_OF_ALL]
    if security_of(handler):
        failures += _OF_AUTHENTICATED
    if body_of(handler):
        failures += _OF_BODIES
    if operation.path_parameters - {"user_id"}:
        failures += _OF_IDS
    if any(parameter.name == "If-Match" for parameter in parameters_of(handler)):
        failures += _OF_IF_MATCH
    return [*failures, *handler.opt.get("failures", ())]


def _failure_response(failures: list[FailureType], components: Components) -> dict[str, Any]:
    """Return the response of failures with one status: a reference to one that operations share, if they are few."""
    if len(failures) > _MAX_SHARED_FAILURES:
        return _described_failures(failures, components)
    name = "Or".join(failure.__name__ for failure in failures)
    if name not in components.responses:
        components.responses[name] = _described_failures(failures, components)
    return {"$ref": f"#/components/responses/{name}"}


def _described_failures(failures: list[FailureType], components: Components) -> dict[str, Any]:
    headers: dict[str, Any] = {**_REQUEST_ID_REFERENCE}
    if errors.Unauthenticated in failures:
        headers["WWW-Authenticate"] = {"description": "`Bearer` (RFC 6750).", "schema": {"type": "string"}}
    if any(failure("").retry_after is not None for failure in failures):
        headers["Retry-After"] = {
            "description": "How long to wait before the next attempt, in seconds.",
            "schema": {"type": "integer"},
        }
    return {
        "description": "\n\n".join(f"`{failure.code}`: {_first_sentence(failure)}" for failure in failures),
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": components.response_schema(Problem), "example": _problem(failures[0])}},
    }


def _problem(failure: FailureType) -> Any:
    """Return an example of the problem of a failure."""
    members = (
        {"errors": [{"path": "$.title", "message": "Expected `str`, got `int`"}]} if failure is errors.Invalid else {}
    )
    sentence = _first_sentence(failure)
    _, _, body = problem_of(failure(sentence, **members), _EXAMPLE_REQUEST_ID)
    return msgspec.json.decode(body)


def _first_sentence(failure: FailureType) -> str:
    """Return the first sentence of a failure's docstring, which is published."""
    return _SENTENCE_END.split(getdoc(failure) or "", maxsplit=1)[0] + "."
