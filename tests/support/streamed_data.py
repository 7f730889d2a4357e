"""Reads the JSON data of server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Any


async def read_until(lines: AsyncIterator[str], type: str) -> list[dict[str, Any]]:
    """Return the data of the events up to the first of this type."""
    events: list[dict[str, Any]] = []
    async for line in lines:
        if line.startswith("data: {"):
            events.append(json.loads(line.removeprefix("data: ")))
            if events[-1]["type"] == type:
                break
    return events
