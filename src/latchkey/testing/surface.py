"""What an app serves, as its published documents say it: its tools and REST operations, with examples of arguments."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from latchkey.application.access import permission_of
from latchkey.testing.service import Service

Schema = dict[str, Any]

_METHODS = ("post", "get", "put", "patch", "delete")
_PREFIX = "/api/{user_id}/"
_BY_FORMAT = {"date": "2027-05-01", "date-time": "2027-05-01T09:00:00Z"}


class Operation(Struct, frozen=True, eq=False):
    """A tool, or a REST operation below `/api/{user_id}/`.

    `arguments` has the schema of each argument by name: body members, and parameters of the path and the query. `ids`
    are the arguments that take an id. `method` and `path` are empty for a tool, and `grant` for a REST operation.
    """

    name: str
    arguments: dict[str, Schema]
    required: frozenset[str]
    method: str = ""
    path: str = ""
    body: frozenset[str] = frozenset()
    takes_key: bool = False
    grant: str = ""
    is_read: bool = True
    is_destructive: bool = False
    is_outside: bool = False

    @property
    def is_tool(self) -> bool:
        """Whether it is a tool."""
        return not self.method

    @property
    def ids(self) -> list[str]:
        """The names of the arguments that take an id."""
        return [name for name, schema in self.arguments.items() if "uuid" in _formats(schema)]

    @property
    def needs_id(self) -> bool:
        """Whether it cannot be called without an id."""
        return not self.required.isdisjoint(self.ids)

    def example(self, canary: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments: those that are given, and minimal ones for the required others but ids.

        Each text without a format or a fixed set of values is the canary, cut to its limit.
        """
        missing = [name for name in self.arguments if name in self.required and name not in {*given, *self.ids}]
        return {**{name: _example(self.arguments[name], canary) for name in missing}, **given}


def tools_of(service: Service) -> list[Operation]:
    """Return the tools of the app and the built-in ones."""
    operations = []
    for name, tool in service.registry.tools.items():
        schema = tool.listing["inputSchema"]
        definitions = schema.get("$defs", {})
        arguments = {key: _resolved(value, {"$defs": definitions}) for key, value in schema["properties"].items()}
        hints = tool.listing["annotations"]
        operations.append(
            Operation(
                name=name,
                arguments=arguments,
                required=frozenset(schema.get("required", ())),
                grant=str(permission_of(tool.binding.use_case).grant),
                is_read=hints["readOnlyHint"],
                is_destructive=hints["destructiveHint"],
                is_outside=tool.binding.is_outside,
            )
        )
    return operations


async def operations_of(service: Service) -> list[Operation]:
    """Return the REST operations below `/api/{user_id}/` of the app and the built-in ones, without `chat`."""
    document = await service.document()
    return [
        _rest_operation(path.removeprefix(_PREFIX), method, item[method], document)
        for path, item in document["paths"].items()
        for method in _METHODS
        if path.startswith(_PREFIX) and method in item and path != f"{_PREFIX}chat"
    ]


def _rest_operation(path: str, method: str, described: Schema, document: Schema) -> Operation:
    parameters = [_resolved(parameter, document) for parameter in described.get("parameters", [])]
    own = {
        parameter["name"]: parameter
        for parameter in parameters
        if (parameter["in"] == "path" and parameter["name"] != "user_id") or parameter["in"] == "query"
    }
    content: dict[str, Schema] = described.get("requestBody", {}).get("content", {})
    body = _resolved(next(iter(content.values()))["schema"], document) if content else {}
    members = {name: _resolved(schema, document) for name, schema in body.get("properties", {}).items()}
    return Operation(
        name=described["operationId"],
        arguments={**{name: _resolved(parameter["schema"], document) for name, parameter in own.items()}, **members},
        required=frozenset(
            [*(name for name, parameter in own.items() if parameter.get("required")), *body.get("required", [])]
        ),
        method=method.upper(),
        path=path,
        body=frozenset(members),
        takes_key=any(parameter["name"] == "Idempotency-Key" for parameter in parameters),
        is_read=method == "get",
        is_destructive=method == "delete",
    )


def _resolved(schema: Schema, document: Schema) -> Schema:
    """Return the schema that a reference names; of alternatives the first that is not null."""
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    if options:
        return _resolved(options[0], document)
    parts = {"items": _resolved(schema["items"], document)} if "items" in schema else {}
    if "properties" in schema:
        parts["properties"] = {name: _resolved(part, document) for name, part in schema["properties"].items()}
    return {**schema, **parts}


def _example(schema: Schema, canary: str) -> Any:
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(properties[name], canary) for name in schema.get("required", [])}
        case "array":
            return [_example(schema["items"], canary)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", int(schema.get("exclusiveMinimum", 0)) + 1)
        case "boolean":
            return False
    text: str = _BY_FORMAT.get(str(schema.get("format")), canary)
    return text[: schema.get("maxLength", len(text))]


def _formats(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("format"), str):
            yield schema["format"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _formats(part)
