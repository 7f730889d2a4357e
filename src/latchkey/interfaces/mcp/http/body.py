"""Reading the body of a request: limits on its size, depth and number of values."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from latchkey.domain.errors import Malformed, TooLarge
from latchkey.interfaces.errors import check_distinct_members, invalid

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 10_000

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


async def read_body(receive: Receive) -> bytes | None:
    """Read the whole body. None if the client disconnects before its end. Raises `TooLarge`."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            raise TooLarge(f"The body is larger than {MAX_BYTES} bytes: send less.")
        if not message.get("more_body", False):
            return bytes(body)


def read_json(body: bytes) -> Any:
    """Parse the body as strict JSON, which all parsers read alike.

    Raises `Malformed` for invalid UTF-8, lone surrogates, deep nesting and duplicate member names, and `TooLarge` for
    too many values, because each value takes many times its size in memory.
    """
    if len(body) > MAX_VALUES and _has_too_many_values(body):
        raise TooLarge(f"The body has more than {MAX_VALUES} values: send fewer.")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(invalid(error).detail) from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Malformed(f"The body is nested more than {MAX_DEPTH} levels deep: flatten it.")
    # As many members as colons: no name is there twice. Otherwise a text may contain colons.
    if _count_members(value) < body.count(b":"):
        check_distinct_members(body)
    return value


def _has_too_many_values(body: bytes) -> bool:
    """Count the values without parsing them, which would take much longer than counting."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * MAX_VALUES:
        return True
    outside_strings = b"".join(plain.split(b'"')[::2])
    return outside_strings.count(b",") + outside_strings.count(b"[") + outside_strings.count(b"{") > MAX_VALUES


def _count_members(value: Any) -> int:
    """Return the number of members of all objects, without recursion."""
    count, parts = 0, [value]
    for part in parts:
        if isinstance(part, dict):
            count += len(part)
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return count


def _depth(value: Any) -> int:
    """Return the nesting depth of lists and objects, without recursion."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    return depth
