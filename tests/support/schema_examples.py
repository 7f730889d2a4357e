"""Valid and invalid values made from a JSON schema: wrong types, limits and formats, and broken JSON."""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

EXAMPLES = {"date-time": "2026-03-01T09:00:00Z", "uuid": "01a1f88f-b877-757a-8488-188f3c989d6d"}
HUGE = 10**400
INVALID_IDS = [
    *(
        "1",
        "null",
        "01a1f88f-b877-757a-8488",
        "{01a1f88f-b877-757a-8488-188f3c989d6d}",
        "01a1f88fb877757a8488188f3c989d6",
    ),
    *("urn:uuid:01a1f88f-b877-757a-8488-188f3c989d6d", "01a1f88f-b877-757a-8488-188f3c989d6g", "\u0661" * 36),
]
INVALID_TIMES = [
    *("", "tomorrow", "2026-03-01", "09:00:00Z", "2026-03-01T09:00:00", "2026-02-30T09:00:00Z", "2026-13-01T09:00:00Z"),
    *(
        "2026-03-01T24:00:01Z",
        "2026-03-01T09:60:00Z",
        "2026-03-01T09:00:61Z",
        "2026-03-01T09:00:00+25:00",
        "1767225600",
    ),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z"),
    *(
        "-2026-03-01T09:00:00Z",
        "2026-03-01T09:00:00 Europe/Vienna",
        "2026-W09-7T09:00:00Z",
        "\u0662026-03-01T09:00:00Z",
    ),
    *("+02026-03-01T09:00:00Z", "2026-03-01T09:00:00Z\n"),
]
INVALID_TEXTS = ["", " \t\u00a0\u3000\u2028", "a\x00b"]
OTHER_TYPES: list[Any] = [[], {}, ["x"], {"x": "y"}, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, HUGE]


def resolve(schema: Schema, document: Schema) -> Schema:
    """The schema, or the part of the document that its `$ref` names."""
    target: Any = document
    for name in schema["$ref"].split("/")[1:] if "$ref" in schema else []:
        target = target[name]
    return target if "$ref" in schema else schema


def example(schema: Schema, document: Schema) -> Any:
    """A minimal valid value: of an object the required members only."""
    schema = resolve(schema, document)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], document)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: example(schema["properties"][name], document) for name in schema.get("required", [])}
        case "array":
            return [example(schema["items"], document)] * schema.get("minItems", 0)
    plain = {"integer": schema.get("minimum", 1), "boolean": False}
    return plain.get(schema.get("type", ""), EXAMPLES.get(schema.get("format", ""), "text"))


def invalid_values(schema: Schema, document: Schema) -> Iterator[Any]:
    """Values of every JSON type that the schema refuses, and texts that break its format."""
    schema = resolve(schema, document)
    formats = {option.get("format") for option in schema.get("anyOf", [schema])}
    limit = max(option.get("maxLength", 0) for option in schema.get("anyOf", [schema]))
    texts = [*INVALID_TEXTS, *([] if limit == 0 else ["x" * (limit + 1)]), "null", "5", "true"]
    bounds = [schema.get("minimum", 1) - 1, schema.get("maximum", 2**63) + 1]
    validator = Draft202012Validator({**schema, "$defs": {}, "components": document.get("components", {})})
    yield from (value for value in [None, *OTHER_TYPES, *bounds, *texts] if not validator.is_valid(value))
    yield from INVALID_IDS if "uuid" in formats else []
    yield from INVALID_TIMES if "date-time" in formats else []


def invalid_bodies(schema: Schema, document: Schema) -> Iterator[tuple[str, bytes]]:
    """Named bodies: JSON that breaks the schema, and texts that are not valid JSON."""
    schema = resolve(schema, document)
    properties = schema["properties"]
    body = example(schema, document) or {next(iter(properties)): example(next(iter(properties.values())), document)}
    for name, declared in properties.items():
        for value in invalid_values(declared, document):
            yield f"{name}: {value!r:.40}", json.dumps({**body, name: value}).encode()
    for name in schema.get("required", []):
        yield f"without {name}", json.dumps({other: value for other, value in body.items() if other != name}).encode()
    yield from invalid_json(json.dumps(body).encode(), list(properties))


def invalid_json(text: bytes, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Named variants of a JSON object that a strict parser refuses. `names` are the members it may have."""
    inside = text[1:-1]
    yield "empty", b""
    yield "whitespace", b" \n"
    yield "byte order mark", b"\xef\xbb\xbf" + text
    yield "UTF-16", text.decode().encode("utf-16")
    yield "UTF-32", text.decode().encode("utf-32-le")
    yield "compressed", gzip.compress(text)
    yield "truncated", text[:-1]
    yield "trailing garbage", text + b"x"
    yield "two documents", text + b"\n" + text
    yield "inside an array", b"[" + text + b"]"
    yield "inside a string", json.dumps(text.decode()).encode()
    yield "trailing comma", b"{" + inside + b",}"
    yield "single quotes", text.replace(b'"', b"'")
    yield "duplicate members", b"{" + inside + b"," + inside + b"}"
    yield "unknown member", b'{"' + uuid4().hex.encode() + b'": 1,' + inside + b"}"
    yield "user_id of another user", b'{"user_id": "bob",' + inside + b"}"
    yield "__proto__ member", b'{"__proto__": {"admin": true},' + inside + b"}"
    yield "NUL in a member name", b'{"\\u0000": 1,' + inside + b"}"
    yield "deep nesting", b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"," + inside + b"}"
    yield "deep nesting, unclosed", b'{"x":' * 20_000
    yield from ((text, text.encode()) for text in ("null", "true", "5", "-0", '"x"', "[]", "NaN", "1e999", "\u2028"))
    for name in names:
        for value in _NOT_JSON:
            yield f"{name}: {value!r:.40}", b'{"%s": %s}' % (name.encode(), value)


_NOT_JSON = [
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"01",
        b"+1",
        b".5",
        b"0x10",
        b"1_000",
        b"undefined",
        b"'x'",
    ),
    *(b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\\ud800"', b'"a\\udfff"', b'"\\u0000"'),
    *(b'"\\x41"', b'"a\nb"', b'"\x00"', b'"\\u12"', b"[" * 2000 + b"]" * 2000, b'"x'),
]
