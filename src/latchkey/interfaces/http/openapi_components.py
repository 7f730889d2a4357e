"""The schemas and responses of the OpenAPI document that operations refer to."""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import cleandoc
from typing import Any, Self, get_args, get_origin

import msgspec

from latchkey.domain.artifact import ArtifactType
from latchkey.domain.credentials import RegisteredGrants
from latchkey.domain.errors import Failure
from latchkey.interfaces.http.event_stream import published_data
from latchkey.interfaces.schemas import readable, with_all_fields_required, without_defaults

_GENERIC_PAGE = re.compile(rb'\bPage_(\w+)_"')
_STREAMED_EVENT = (
    "One of the server-sent events. `id` is its number in the turn; `data` is JSON. The texts of all `message.delta`"
    " events, joined, are the answer. The last event is `turn.completed`, `turn.failed`, `turn.cancelled` or"
    " `turn.interrupted`. A later release may add events: ignore those that you do not know."
)
_EVENT_DATA = "The JSON `data` of a server-sent event. `StreamedEvent` says which data belongs to which event."


class Components:
    """Collects the schemas and responses that operations refer to."""

    def __init__(self, vocabularies: Mapping[str, Sequence[str]]) -> None:
        self._vocabularies = vocabularies
        self._response_schemas: dict[Any, dict[str, Any]] = {}
        self.schemas: dict[str, Any] = {}
        self.responses: dict[str, Any] = {}

    @classmethod
    def of(cls, grants: RegisteredGrants, agents: Sequence[str]) -> Self:
        """Return components in which texts for grants, agents, types of artifacts and codes are enums."""
        types = get_args(ArtifactType)
        return cls({"Grant": grants.names, "AgentName": agents, "ArtifactType": types, "ProblemCode": _codes()})

    def schema(self, type: Any, change: Callable[[Any], Any] = lambda schemas: schemas) -> dict[str, Any]:
        """Return the schema of a type, or a reference to it. A page of tasks is named `TaskPage`.

        `change` changes the schemas that the reference leads to.
        """
        generated = msgspec.json.schema_components((type,), ref_template="#/components/schemas/{name}")
        renamed = _GENERIC_PAGE.sub(rb'\1Page"', msgspec.json.encode(generated))
        ((schema,), schemas) = readable(msgspec.json.decode(renamed))
        self.schemas |= change(self._with_vocabularies(_with_clean_descriptions(schemas)))
        return dict(schema)

    def _with_vocabularies(self, node: Any) -> Any:
        """Make each text with values of a vocabulary a reference to one schema, which lists the values."""
        if isinstance(node, list):
            return [self._with_vocabularies(part) for part in node]
        if not isinstance(node, dict):
            return node
        name = node.get("title")
        if isinstance(name, str) and name in self._vocabularies:
            self.schemas[name] = {"type": "string", **node, "enum": list(self._vocabularies[name])}
            return {"$ref": f"#/components/schemas/{name}"}
        changed = {keyword: self._with_vocabularies(part) for keyword, part in node.items()}
        is_bounded = changed.get("items") == {"$ref": "#/components/schemas/Grant"} and "maxItems" in changed
        return {**changed, "maxItems": len(self._vocabularies["Grant"])} if is_bounded else changed

    def request_schema(self, type: Any) -> dict[str, Any]:
        """Return the schema of a request body, or a reference to it."""
        return self.schema(type, without_defaults)

    def response_schema(self, type: Any) -> dict[str, Any]:
        """Return the schema of a response body, or a reference to it. Fields that are always sent are required.

        Each is made once: a problem is the body of ten responses of each operation.
        """
        if type not in self._response_schemas:
            self._response_schemas[type] = self._response_schema(type)
        return self._response_schemas[type]

    def _response_schema(self, type: Any) -> dict[str, Any]:
        omitting = {struct.__name__ for struct in _structs_of(msgspec.inspect.type_info(type)) if _omits(struct)}
        return self.schema(
            type,
            lambda schemas: {
                name: without_defaults(schema) if name in omitting else with_all_fields_required(schema)
                for name, schema in schemas.items()
            },
        )

    def event_schema(self) -> dict[str, Any]:
        """Return a reference to the schema of an event's data, and add that of the event: a union by `event`.

        A generated client that reads a stream takes the schema of its media type for that of the data.
        """
        data = {name: self.response_schema(type) for name, type in published_data()}
        self.schemas["EventData"] = {"title": "EventData", "description": _EVENT_DATA, "anyOf": list(data.values())}
        self.schemas["StreamedEvent"] = {
            "title": "StreamedEvent",
            "description": _STREAMED_EVENT,
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "event": {"type": "string", "const": name},
                        "data": schema,
                    },
                    "required": ["id", "event", "data"],
                }
                for name, schema in data.items()
            ],
        }
        return {"$ref": "#/components/schemas/EventData"}


def _codes() -> list[str]:
    """Return every code of a problem, sorted."""
    types = [Failure]
    for failure in types:
        types += failure.__subclasses__()
    return sorted({failure.code for failure in types})


def _structs_of(described: msgspec.inspect.Type) -> set[type[msgspec.Struct]]:
    """Return the structs in a type that `msgspec.inspect` describes; a struct may contain itself."""
    structs: set[type[msgspec.Struct]] = set()
    remaining: list[Any] = [described]
    while remaining:
        node = remaining.pop()
        if isinstance(node, msgspec.inspect.StructType):
            struct = get_origin(node.cls) or node.cls
            if struct in structs:
                continue
            structs.add(struct)
        if isinstance(node, msgspec.Struct):
            remaining += msgspec.structs.astuple(node)
        elif isinstance(node, tuple):
            remaining += node
    return structs


def _omits(struct: type[msgspec.Struct]) -> bool:
    return struct.__struct_config__.omit_defaults


def _with_clean_descriptions(schema: Any) -> Any:
    """Remove the indentation of docstrings, which msgspec publishes as it is."""
    if isinstance(schema, dict):
        return {name: _with_clean_descriptions(value) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_with_clean_descriptions(item) for item in schema]
    return cleandoc(schema) if isinstance(schema, str) and "\n" in schema else schema
