"""Answers as they are compared: all that they say, but for what differs between any two."""

import re

import httpx2

_DIFFERS = {"x-request-id", "date"}
_CHANGING = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    rb"|\d{4}-\d\d-\d\dT[\d:.]+Z"
    rb'|"duration_ms":\d+'
)

Said = tuple[int, list[tuple[str, str]], bytes]


def said(response: httpx2.Response, *asked_for: str) -> Said:
    """Status, headers and body, byte for byte, without the request's id and the id that it asked for."""
    body = response.content.replace(response.headers["x-request-id"].encode(), b"REQUEST")
    for id in asked_for:
        body = body.replace(id.encode(), b"ID")
    kept = [(name, value) for name, value in response.headers.items() if name not in _DIFFERS]
    return response.status_code, kept, body


def outline(response: httpx2.Response) -> Said:
    """The same of what has made something new: without ids, times and durations, and so without lengths."""
    status, kept, body = said(response)
    return status, [one for one in kept if one[0] != "content-length"], _CHANGING.sub(b"-", body)


def is_done(response: httpx2.Response) -> bool:
    """Whether it is what its caller wanted: over MCP, errors are in the body."""
    return response.is_success and b'"isError":true' not in response.content and b'"error":{' not in response.content
