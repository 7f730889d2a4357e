"""Right input made wrong, in every way that a schema or a text can be broken: made from schemas, of any operation."""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

RIGHT = {"date-time": "2026-03-01T09:00:00Z", "uuid": "01a1f88f-b877-757a-8488-188f3c989d6d"}
HUGE = 10**400
WRONG_IDS = [
    *(
        "1",
        "null",
        "01a1f88f-b877-757a-8488",
        "{01a1f88f-b877-757a-8488-188f3c989d6d}",
        "01a1f88fb877757a8488188f3c989d6",
    ),
    *("urn:uuid:01a1f88f-b877-757a-8488-188f3c989d6d", "01a1f88f-b877-757a-8488-188f3c989d6g", "\u0661" * 36),
]
WRONG_TIMES = [
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
WRONG_TEXTS = ["", " \t\u00a0\u3000\u2028", "a\x00b"]
WRONG_KINDS: list[Any] = [[], {}, ["x"], {"x": "y"}, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, HUGE]


def resolved(schema: Schema, document: Schema) -> Schema:
    """The schema itself, where it is a reference into the document."""
    found: Any = document
    for name in schema["$ref"].split("/")[1:] if "$ref" in schema else []:
        found = found[name]
    return found if "$ref" in schema else schema


def right(schema: Schema, document: Schema) -> Any:
    """The least that is right."""
    schema = resolved(schema, document)
    if "anyOf" in schema:
        return right(schema["anyOf"][0], document)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: right(schema["properties"][name], document) for name in schema.get("required", [])}
        case "array":
            return [right(schema["items"], document)] * schema.get("minItems", 0)
    plain = {"integer": schema.get("minimum", 1), "boolean": False}
    return plain.get(schema.get("type", ""), RIGHT.get(schema.get("format", ""), "text"))


def wrong_values(schema: Schema, document: Schema) -> Iterator[Any]:
    """Values of every kind that the schema does not allow, those of its format among them."""
    schema = resolved(schema, document)
    formats = {one.get("format") for one in schema.get("anyOf", [schema])}
    limit = max(one.get("maxLength", 0) for one in schema.get("anyOf", [schema]))
    texts = [*WRONG_TEXTS, *([] if limit == 0 else ["x" * (limit + 1)]), "null", "5", "true"]
    bounds = [schema.get("minimum", 1) - 1, schema.get("maximum", 2**63) + 1]
    judge = Draft202012Validator({**schema, "$defs": {}, "components": document.get("components", {})})
    yield from (value for value in [None, *WRONG_KINDS, *bounds, *texts] if not judge.is_valid(value))
    yield from WRONG_IDS if "uuid" in formats else []
    yield from WRONG_TIMES if "date-time" in formats else []


def wrong_bodies(schema: Schema, document: Schema) -> Iterator[tuple[str, bytes]]:
    """Bodies that say in JSON what is wrong, and bodies that are not what JSON is."""
    schema = resolved(schema, document)
    properties = schema["properties"]
    body = right(schema, document) or {next(iter(properties)): right(next(iter(properties.values())), document)}
    for name, declared in properties.items():
        for value in wrong_values(declared, document):
            yield f"{name}: {value!r:.40}", json.dumps({**body, name: value}).encode()
    for name in schema.get("required", []):
        yield f"no {name}", json.dumps({one: value for one, value in body.items() if one != name}).encode()
    yield from wrong_json(json.dumps(body).encode(), list(properties))


def wrong_json(text: bytes, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """An object in JSON, made into something else. The names are those that it may have."""
    inside = text[1:-1]
    yield "nothing", b""
    yield "only space", b" \n"
    yield "a mark of the byte order", b"\xef\xbb\xbf" + text
    yield "UTF-16", text.decode().encode("utf-16")
    yield "UTF-32", text.decode().encode("utf-32-le")
    yield "compressed", gzip.compress(text)
    yield "cut short", text[:-1]
    yield "with something behind", text + b"x"
    yield "two documents", text + b"\n" + text
    yield "in a list", b"[" + text + b"]"
    yield "in a text", json.dumps(text.decode()).encode()
    yield "with a comma too many", b"{" + inside + b",}"
    yield "in apostrophes", text.replace(b'"', b"'")
    yield "members twice", b"{" + inside + b"," + inside + b"}"
    yield "an unknown member", b'{"' + uuid4().hex.encode() + b'": 1,' + inside + b"}"
    yield "another user", b'{"user_id": "bob",' + inside + b"}"
    yield "a prototype", b'{"__proto__": {"admin": true},' + inside + b"}"
    yield "a NUL for a name", b'{"\\u0000": 1,' + inside + b"}"
    yield "nested deeply", b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"," + inside + b"}"
    yield "nested deeply and never closed", b'{"x":' * 20_000
    yield from ((kind, kind.encode()) for kind in ("null", "true", "5", "-0", '"x"', "[]", "NaN", "1e999", "\u2028"))
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
