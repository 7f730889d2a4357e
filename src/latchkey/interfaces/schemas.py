"""Changes to generated JSON Schemas, so that validators, code generators and model servers read them.

The schemas that msgspec generates describe what the service checks. What is published may allow more than that.
"""

from collections.abc import Callable
from typing import Any

from latchkey.domain.values import PLAIN, PRINTABLE, VISIBLE

Schema = dict[str, Any]

_MAX_LENGTH_FOR_MODELS = 1000
PORTABLE_PATTERNS = {
    PLAIN: r"^[^\x00]*$",
    VISIBLE: r"^\s*[^\s\x00][^\x00]*$",
    PRINTABLE: r"^[^\x00-\x1f\x7f]*$",
}
"""What is published for the patterns of the service.

JavaScript without Unicode mode, RE2 and Python compile them. They know no surrogates, and differ in the meaning of \\s:
no engine refuses a visible character but U+FEFF.
"""
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}


def readable(schema: Any) -> Any:
    """Add the type to every enum, because generators lose the values without it, and replace unportable patterns."""
    return _changed(schema, lambda part: _with_portable_pattern(_with_type(part)))


def for_models(schema: Any) -> Any:
    """Change the schema of a tool: no patterns, no large `maxLength`, no additional properties, nothing to be ignored.

    Model servers compile the schema to a grammar. Clients compile patterns with engines that differ. Every request of a
    turn contains the schemas: titles, which repeat names, and defaults of null are left out.
    """
    return _changed(schema, _restrict_for_models)


def without_defaults(schema: Any) -> Any:
    """Move defaults of properties into their descriptions: TypeScript generators make a property with one required."""
    return _changed(schema, _describe_defaults)


def with_all_fields_required(schema: Schema) -> Schema:
    """Make the properties that have a default required: a response contains them."""
    fields: Schema = schema.get("properties", {})
    always_sent = [name for name, field in fields.items() if name in schema["required"] or "default" in field]
    if not fields:
        return schema
    return {
        **schema,
        "properties": {name: _without(field, {"default"}) for name, field in fields.items()},
        "required": always_sent,
    }


def _without(schema: Schema, keywords: set[str]) -> Schema:
    return {keyword: value for keyword, value in schema.items() if keyword not in keywords}


def _changed(node: Any, change: Callable[[Schema], Schema]) -> Any:
    if isinstance(node, list):
        return [_changed(part, change) for part in node]
    if not isinstance(node, dict):
        return node
    return change({keyword: _changed(part, change) for keyword, part in node.items()})


def _with_type(schema: Schema) -> Schema:
    values = schema.get("enum")
    if not isinstance(values, list) or "type" in schema:
        return schema
    types = {_JSON_TYPES[type(value)] for value in values}
    return {"type": types.pop(), **schema} if len(types) == 1 else schema


def _with_portable_pattern(schema: Schema) -> Schema:
    pattern = schema.get("pattern")
    return {**schema, "pattern": PORTABLE_PATTERNS[pattern]} if pattern in PORTABLE_PATTERNS else schema


def _restrict_for_models(schema: Schema) -> Schema:
    is_too_long = isinstance(limit := schema.get("maxLength"), int) and limit > _MAX_LENGTH_FOR_MODELS
    removed = {"maxLength"} if is_too_long else set()
    removed |= {keyword for keyword in ("pattern", "title") if isinstance(schema.get(keyword), str)}
    if "default" in schema and schema["default"] is None:
        removed.add("default")
    restricted = _without(_with_type(schema), removed)
    if schema.get("type") == "object" and "properties" in schema:
        restricted["additionalProperties"] = False
    return restricted


def _describe_defaults(schema: Schema) -> Schema:
    if schema.get("type") != "object" or "properties" not in schema:
        return schema
    return {**schema, "properties": {name: _without_default(field) for name, field in schema["properties"].items()}}


def _without_default(field: Schema) -> Schema:
    if "default" not in field:
        return field
    published = _without(field, {"default"})
    if (default := field["default"]) is not None:
        text = str(default).lower() if isinstance(default, bool) else str(default)
        published["description"] = f"{field.get('description', '')} Default: `{text}`.".lstrip()
    return published
