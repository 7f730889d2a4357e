"""Hooks of Schemathesis, in addition to schemathesis.toml."""

from typing import Any

import schemathesis

from latchkey.domain.values import PLAIN, VISIBLE
from latchkey.interfaces.schemas import PORTABLE_PATTERNS

_SIMPLE = {PORTABLE_PATTERNS[PLAIN]: None, PORTABLE_PATTERNS[VISIBLE]: r"[^\s\u001c-\u001f\u0085]"}
"""Replacements for patterns of whole texts: generating long texts from those takes minutes.

U+0085 is white space in Python and not in JavaScript, whose meaning Schemathesis generates.
"""


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Simplify the patterns. NUL and lone surrogates are not generated anyway: `test_invalid_input` sends them."""
    _simplify(raw_schema)
    # A schema cannot describe which time zones, assistants and models exist: other names are 422, and no turn starts.
    message = raw_schema["components"]["schemas"]["NewMessage"]["properties"]
    message["timezone"] = {"enum": ["UTC", "Asia/Tokyo"]}
    message["assistant"], message["model"] = {"enum": ["default", None]}, {"type": "null"}
    for path, operations in raw_schema["paths"].items():
        if not path.endswith("/chat"):
            _remove_idempotency_key(operations)
        for operation in operations.values():
            _describe_whole_events(operation)


def _remove_idempotency_key(operations: dict[str, Any]) -> None:
    """Nor can it describe that a key was used before: with repeated keys hardly any entity would be made."""
    for operation in operations.values():
        if "parameters" in operation:
            operation["parameters"] = [
                parameter for parameter in operation["parameters"] if parameter.get("name") != "Idempotency-Key"
            ]


def _describe_whole_events(operation: dict[str, Any]) -> None:
    """The document describes the JSON `data` of an event, for generated clients; Schemathesis checks whole events."""
    for response in operation.get("responses", {}).values():
        stream = response.get("content", {}).get("text/event-stream")
        if stream:
            data = {"type": "string", "contentMediaType": "application/json", "contentSchema": stream["schema"]}
            stream["schema"] = {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _simplify(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("pattern") in _SIMPLE:
            simple = _SIMPLE[node.pop("pattern")]
            node |= {} if simple is None else {"pattern": simple}
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        _simplify(part)
