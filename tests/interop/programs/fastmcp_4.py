"""fastmcp's client, in an environment of its own: a command a line in, its answer a line out."""

import asyncio
import json
import os
import sys
from typing import Any

from fastmcp import Client  # type: ignore[import-not-found]
from fastmcp.client.transports import (  # type: ignore[import-not-found]
    StdioTransport,
    StreamableHttpTransport,
)


async def main() -> None:
    door = json.loads(os.environ["DOOR"])
    mode = {"modern": "2026-07-28"}.get(door["era"], door["era"])
    try:
        async with Client(_transport(door), mode=mode) as client:
            _say(ok=client.protocol_version)
            for line in sys.stdin:
                await _obey(client, json.loads(line))
    except Exception as error:  # noqa: BLE001  # whatever it is, the test hears of it
        _say(refused=str(error))


def _transport(door: dict[str, Any]) -> Any:
    if "url" in door:
        return StreamableHttpTransport(door["url"], headers={"Authorization": f"Bearer {door['bearer']}"})
    return StdioTransport(door["command"], door["args"], env=door["env"], keep_alive=False)


async def _obey(client: Any, given: dict[str, Any]) -> None:
    try:
        _say(ok=await _done(client, given))
    except Exception as error:  # noqa: BLE001
        _say(refused=str(error))


async def _done(client: Any, given: dict[str, Any]) -> Any:
    match given["command"]:
        case "tools":
            return [tool.name for tool in await client.list_tools()]
        case "resources":
            return [str(one.uri) for one in await client.list_resources()]
        case "read":
            return (await client.read_resource(given["uri"]))[0].text
        case _:
            result = await client.call_tool(given["name"], given["arguments"], raise_on_error=False)
            said = result.content[0].text
            return {"content": result.structured_content, "text": said, "is_error": result.is_error}


def _say(**line: Any) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


asyncio.run(main())
