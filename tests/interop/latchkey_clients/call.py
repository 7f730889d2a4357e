"""Makes one call with the Python client, and writes what it receives as lines of JSON."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from latchkey_client import Event, LatchkeyClient, ProblemError, text_after

CALL: dict[str, Any] = json.loads(os.environ["CALL"])


async def main() -> None:
    async def token() -> str:
        return str(CALL["token"])

    async with LatchkeyClient(CALL["url"], token, **CALL["options"]) as client:
        try:
            await make_call(client)
        except ProblemError as error:
            write({"problem": [error.status, error.code, str(error), error.problem.get("conflicts")]})


async def make_call(client: LatchkeyClient) -> None:
    match CALL["name"]:
        case "chat":
            answer = await client.chat(
                CALL["message"], assistant=CALL.get("assistant"), idempotency_key=CALL.get("key")
            )
            write({answer["status"]: answer["approvals"]} if "status" in answer else {"answer": answer["response"]})
        case "stream":
            await write_events(client.stream(CALL["message"], assistant=CALL.get("assistant")))
        case "approvals":
            write({"approvals": await client.approvals()})
        case "decide":
            write({"decided": await client.decide(CALL["turn_id"], CALL["call_id"], CALL["decision"])})
        case "undo":
            write({"undone": await client.undo(CALL["turn_id"])})
        case "decide_and_follow":
            ids = CALL["turn_id"], CALL["call_id"]
            await write_events(client.decide_and_follow(*ids, CALL["decision"], reason=CALL.get("reason")))
        case "follow":
            await write_events(client.follow(CALL["turn_id"], after=CALL["after"]))
        case "add_task":
            write({"answer": (await client.request("POST", "tasks", body={"title": CALL["message"]}))["title"]})


async def write_events(events: AsyncGenerator[Event, None]) -> None:
    number, text = 0, ""
    async with aclosing(events):
        async for event in events:
            write({"event": event})
            number += 1
            text = text_after(text, event)
            if number == CALL.get("leave_after"):
                write({"left": True})
                return
    write({"text": text})


def write(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # read by the test


asyncio.run(main())
