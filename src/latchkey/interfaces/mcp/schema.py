"""JSON Schema as MCP wants it: an object at the root, and no object open to fields that nobody named."""

from typing import Any

import msgspec

_AT = "#/$defs/"


def schema_of(struct: Any) -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of a struct, with the structs inside it under `$defs`."""
    (root,), definitions = msgspec.json.schema_components([struct])
    schema: dict[str, Any] = definitions.pop(root["$ref"].removeprefix(_AT))
    del schema["title"]
    if definitions:
        schema["$defs"] = definitions
    closed: dict[str, Any] = _closed(schema)
    return closed


def _closed(schema: Any) -> Any:
    """The same, with every object closed: an answer has what the schema says and nothing else."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {word: _closed(part) for word, part in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed
