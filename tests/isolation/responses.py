"""Reduces responses to what can be compared between two requests."""

import re

import httpx2

_VARYING_HEADERS = {"x-request-id", "date"}
_VARYING_TEXT = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    rb"|\d{4}-\d\d-\d\dT[\d:.]+Z"
    rb'|"duration_ms":\d+'
)

Comparable = tuple[int, list[tuple[str, str]], bytes]


def comparable(response: httpx2.Response, *requested_ids: str) -> Comparable:
    """Status, headers and body, byte for byte, with the request id and the requested ids masked."""
    body = response.content.replace(response.headers["x-request-id"].encode(), b"REQUEST")
    for id in requested_ids:
        body = body.replace(id.encode(), b"ID")
    headers = [(name, value) for name, value in response.headers.items() if name not in _VARYING_HEADERS]
    return response.status_code, headers, body


def comparable_without_ids(response: httpx2.Response) -> Comparable:
    """`comparable` for a response to a creation: ids, times and durations are masked, the length is left out."""
    status, headers, body = comparable(response)
    return status, [header for header in headers if header[0] != "content-length"], _VARYING_TEXT.sub(b"-", body)


def is_successful(response: httpx2.Response) -> bool:
    """Whether the operation succeeded. Over MCP the body says so, not the status."""
    return response.is_success and b'"isError":true' not in response.content and b'"error":{' not in response.content
