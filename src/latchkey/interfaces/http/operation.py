"""One operation of the published schema: what it takes, and everything that it may answer."""

from collections.abc import Iterator
from inspect import getdoc
from typing import Any

from litestar import Response
from litestar.enums import ParamType
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.response import Stream
from litestar.routes import HTTPRoute
from litestar.types import Empty
from litestar.typing import FieldDefinition

from latchkey.interfaces.http.body import JSON, media_types
from latchkey.interfaces.http.components import Components
from latchkey.interfaces.http.event_stream import MEDIA_TYPE as EVENT_STREAM
from latchkey.interfaces.http.event_stream import StreamedEvent
from latchkey.interfaces.http.headers import REQUEST_ID
from latchkey.interfaces.http.refusals import refusals

_CONSTRAINTS = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}


def describe(route: HTTPRoute, handler: HTTPRouteHandler, components: Components) -> dict[str, Any]:
    """An OpenAPI operation object. The name of the handler is its id, and the docstring its description."""
    summary, _, description = (getdoc(handler.fn) or "").partition("\n\n")
    declared = {
        "operationId": handler.handler_name,
        "tags": handler.resolve_tags(),
        "summary": summary,
        "description": description.replace("\n", " "),
        "security": handler.resolve_security(),
        "parameters": _parameters(route, handler, components),
        "requestBody": _request_body(handler, components),
    }
    responses = {str(handler.status_code): _success(handler, components), **refusals(route, handler, components)}
    return {name: value for name, value in declared.items() if value} | {"responses": responses}


def _parameters(route: HTTPRoute, handler: HTTPRouteHandler, components: Components) -> list[dict[str, Any]]:
    """The user of the path is the same everywhere, and no handler takes one."""
    fields = handler.parsed_fn_signature.parameters.values()
    whose = [{"$ref": "#/components/parameters/user_id"}] if "user_id" in route.path_parameters else []
    return whose + [
        _parameter(field, field.kwarg_definition, components)
        for field in fields
        if isinstance(field.kwarg_definition, ParameterKwarg)
    ]


def _parameter(field: FieldDefinition, declared: ParameterKwarg, components: Components) -> dict[str, Any]:
    schema = components.schema(field.annotation)
    schema = dict(schema.get("anyOf", [schema])[0])  # one that may be left out is not one that may be null
    for name, published in _CONSTRAINTS.items():
        if (limit := getattr(declared, name)) is not None:
            schema[published] = limit
    schema |= declared.schema_extra or {}
    if field.default not in {None, Empty}:
        schema["default"] = field.default
    described: dict[str, Any] = {"name": declared.name or field.name, "in": declared.param_type.value, "schema": schema}
    if declared.description:
        described["description"] = declared.description
    if declared.param_type is ParamType.PATH:
        described["required"] = True
    return described


def _request_body(handler: HTTPRouteHandler, components: Components) -> dict[str, Any] | None:
    declared = handler.parsed_data_field
    if declared is None:
        return None
    schema = components.schema(declared.annotation)
    return {"required": True, "content": {name: {"schema": schema} for name in media_types(declared)}}


def _success(handler: HTTPRouteHandler, components: Components) -> dict[str, Any]:
    headers = {
        header.name: {"description": header.description, "schema": {"type": "string"}}
        for header in sorted(handler.resolve_response_headers(), key=lambda header: header.name)
    }
    response: dict[str, Any] = {"description": "Done.", "headers": {**REQUEST_ID, **headers}}
    if content := dict(_content(handler, components)):
        response["content"] = content
    return response


def _content(handler: HTTPRouteHandler, components: Components) -> Iterator[tuple[str, Any]]:
    """What is answered without being asked for comes first."""
    returned = handler.parsed_fn_signature.return_type
    if not (returned.is_subclass_of(Stream) or returned.is_none_type):
        (answered,) = returned.inner_types if returned.is_subclass_of(Response) else (returned,)
        yield handler.media_type.partition(";")[0] or JSON, {"schema": components.schema(answered.annotation)}
    if handler.opt.get("streams"):
        yield EVENT_STREAM, {"schema": components.schema(StreamedEvent)}
