"""fastmcp's client, in a separate environment. It reads one command per line and writes one reply per line."""

import asyncio
import json
import os
import sys
from typing import Any

from fastmcp import Client  # type: ignore[import-not-found]
from fastmcp.client.elicitation import ElicitResult  # type: ignore[import-not-found]
from fastmcp.client.transports import (  # type: ignore[import-not-found]
    StdioTransport,
    StreamableHttpTransport,
)


async def main() -> None:
    endpoint = json.loads(os.environ["ENDPOINT"])
    mode = {"modern": "2026-07-28"}.get(endpoint["era"], endpoint["era"])
    try:
        options = {"elicitation_handler": _answer(endpoint["answer"])} if endpoint.get("answer") else {}
        async with Client(_transport(endpoint), mode=mode, **options) as client:
            _reply(ok=client.protocol_version)
            for line in sys.stdin:
                await _execute(client, json.loads(line))
    except Exception as error:  # noqa: BLE001  # every error is reported to the test
        _reply(refused=str(error))


def _answer(result: dict[str, Any]) -> Any:
    async def answer(*_: Any) -> Any:
        return ElicitResult(**result)

    return answer


def _transport(endpoint: dict[str, Any]) -> Any:
    if "url" in endpoint:
        return StreamableHttpTransport(endpoint["url"], headers={"Authorization": f"Bearer {endpoint['bearer']}"})
    return StdioTransport(endpoint["command"], endpoint["args"], env=endpoint["env"], keep_alive=False)


async def _execute(client: Any, command_line: dict[str, Any]) -> None:
    try:
        _reply(ok=await _run(client, command_line))
    except Exception as error:  # noqa: BLE001
        _reply(refused=str(error))


async def _run(client: Any, command_line: dict[str, Any]) -> Any:
    match command_line["command"]:
        case "tools":
            return [tool.name for tool in await client.list_tools()]
        case "resources":
            return [str(one.uri) for one in await client.list_resources()]
        case "read":
            return (await client.read_resource(command_line["uri"]))[0].text
        case _:
            result = await client.call_tool(command_line["name"], command_line["arguments"], raise_on_error=False)
            text = result.content[0].text
            return {"content": result.structured_content, "text": text, "is_error": result.is_error}


def _reply(**line: Any) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


asyncio.run(main())
