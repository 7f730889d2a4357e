"""The cost of front ends, compared with REST: `python -m bench.frontends`.

`python -m bench.frontends REST "AI SDK"` measures these protocols only.

- The delay of the first word: from the model to the client, one turn at a time.
- The CPU time of the server for a streamed turn of many words, with several turns at once.
- The CPU time of the server for a page of a conversation with 25 turns, each with a tool call: 50 messages over REST.

All protocols are measured alternately within each round. On SQLite, or the database of LATCHKEY_DATABASE_URL.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from statistics import median
from time import monotonic
from typing import Any
from uuid import uuid4

import click
from msgspec import Struct

from bench.http1 import Connection
from bench.measurement import cpu_seconds
from bench.streaming import model_service, slow_model, token
from tests.e2e.service_process import Replica

ROUNDS = 11
DELAY_TURNS, DELAY_WORDS, DELAY_PAUSE_S = 15, 3, 0.05
TURNS, WORDS, PAUSE_S = 20, 118, 0.02
PAGE_TURNS, PAGES = 25, 50
MESSAGE = "Tell me the time"

_WORD = re.compile(rb'"(?:delta|text)":"(\d+\.\d+) ')
_LAST_TASK = f"task {PAGE_TURNS}".encode()
_users = count(1)


class Protocol(Struct, frozen=True):
    """How a protocol sends a message and reads a page. `end` is in the last event of a stream."""

    path: str
    body: Callable[[str], dict[str, Any]]
    end: bytes
    page: str


PROTOCOLS = {
    "REST": Protocol(
        "chat",
        lambda name: {"message": MESSAGE, "client_conversation_id": name},
        b"event: turn.completed",
        "conversations/{id}/messages?limit=50",
    ),
    "AI SDK": Protocol(
        "ai-sdk/chat",
        lambda name: {
            "id": name,
            "trigger": "submit-message",
            "message": {"id": str(uuid4()), "role": "user", "parts": [{"type": "text", "text": MESSAGE}]},
        },
        b"data: [DONE]",
        "ai-sdk/chat/{id}?limit=25",
    ),
    "AG-UI": Protocol(
        "ag-ui",
        lambda name: {
            "threadId": name,
            "runId": str(uuid4()),
            "messages": [{"id": str(uuid4()), "role": "user", "content": MESSAGE}],
            "state": {},
            "tools": [],
            "context": [],
            "forwardedProps": {},
        },
        b'"type":"RUN_FINISHED"',
        "ag-ui/{id}?limit=25",
    ),
    "OpenAI": Protocol(
        "openai/v1/responses",
        lambda _: {"model": "latchkey", "input": MESSAGE, "stream": True},
        b"event: response.completed",
        "openai/v1/conversations/conv_{hex}/items?limit=75",
    ),
}


async def main() -> None:
    for name in sys.argv[1:] and PROTOCOLS.keys() - sys.argv[1:]:
        del PROTOCOLS[name]
    with slow_model(DELAY_PAUSE_S, DELAY_WORDS) as model_url, model_service(model_url) as replica:
        await report("first word after", partial_rounds(replica, delay_of_first_words))
    with slow_model(PAUSE_S, WORDS) as model_url, model_service(model_url) as replica:
        await report(f"CPU of a turn of {WORDS} words", partial_rounds(replica, cpu_of_turns))
    with model_service(
        "http://127.0.0.1:9/v1", LATCHKEY_AGENT="rehearsal", LATCHKEY_REQUESTS_PER_MINUTE="1000000"
    ) as replica:
        conversation = await create_conversation(replica)
        await report("CPU of a page", partial_rounds(replica, cpu_of_pages, *conversation))


Measure = Callable[..., Awaitable[float]]


def partial_rounds(replica: Replica, measure: Measure, *values: str) -> Callable[[Protocol], Awaitable[float]]:
    return lambda protocol: measure(replica, protocol, *values)


async def report(title: str, measure: Callable[[Protocol], Awaitable[float]]) -> None:
    """Measure all protocols in each round, and print their medians and the medians of their ratios to REST."""
    figures: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    for protocol in PROTOCOLS.values():
        await measure(protocol)  # warms up
    for number in range(ROUNDS):
        names = list(PROTOCOLS) if number % 2 == 0 else list(PROTOCOLS)[::-1]
        for name in names:
            figures[name].append(await measure(PROTOCOLS[name]))
    for name, values in figures.items():
        ratio = median(value / rest for value, rest in zip(values, figures["REST"], strict=True))
        spread = f"{min(values) * 1000:.2f} to {max(values) * 1000:.2f}"
        click.echo(f"{title}, {name}: {median(values) * 1000:.2f} ms ({spread}), {ratio:.2f} x REST")


async def delay_of_first_words(replica: Replica, protocol: Protocol) -> float:
    """The median delay in seconds from the model to the client."""
    return median([await stream_turn(replica, protocol) for _ in range(DELAY_TURNS)])


async def cpu_of_turns(replica: Replica, protocol: Protocol) -> float:
    """The CPU seconds of the server for a turn."""
    before = cpu_seconds(pid_of(replica))
    await asyncio.gather(*(stream_turn(replica, protocol) for _ in range(TURNS)))
    return (cpu_seconds(pid_of(replica)) - before) / TURNS


async def cpu_of_pages(replica: Replica, protocol: Protocol, user: str, conversation_id: str) -> float:
    """The CPU seconds of the server for a page."""
    path = protocol.page.format(id=conversation_id, hex=conversation_id.replace("-", ""))
    connection = await Connection.open(*address_of(replica))
    before = cpu_seconds(pid_of(replica))
    for _ in range(PAGES):
        response = await connection.request(request_of(replica, user, "GET", path))
        if _LAST_TASK not in response.body:
            raise RuntimeError(response)
    spent = cpu_seconds(pid_of(replica)) - before
    connection.close()
    return spent / PAGES


async def create_conversation(replica: Replica) -> tuple[str, str]:
    """Create a conversation of 25 turns, each with a tool call. Returns its user and its id."""
    user, conversation_id = f"user-{next(_users)}", None
    connection = await Connection.open(*address_of(replica))
    for number in range(1, PAGE_TURNS + 1):
        message = f'/add_task {{"title": "task {number}"}}'
        body = {"message": message, "conversation_id": conversation_id}
        response = await connection.request(request_of(replica, user, "POST", "chat", body))
        conversation_id = json.loads(response.body)["conversation_id"]
    connection.close()
    return user, str(conversation_id)


async def stream_turn(replica: Replica, protocol: Protocol) -> float:
    """Stream a turn of a new user to its end. Returns the delay of its first word in seconds."""
    user = f"user-{next(_users)}"
    body = protocol.body(str(uuid4()))
    reader, writer = await asyncio.open_connection(*address_of(replica))
    writer.write(
        request_of(replica, user, "POST", protocol.path, body, "Accept: text/event-stream\r\nConnection: close")
    )
    delay, received = None, b""
    while part := await reader.read(65_536):
        now = monotonic()
        received += part
        if delay is None and (word := _WORD.search(received)):
            delay = now - float(word[1])
    writer.close()
    if delay is None or protocol.end not in received:
        raise RuntimeError(received.decode())
    return delay


def request_of(replica: Replica, user: str, method: str, path: str, body: Any = None, headers: str = "") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} /api/{user}/{path} HTTP/1.1",
        f"Host: {replica.url.removeprefix('http://')}",
        f"Authorization: Bearer {token(user)}",
        *([f"Content-Type: application/json\r\nContent-Length: {len(content)}"] if content else []),
        *([headers] if headers else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


def address_of(replica: Replica) -> tuple[str, int]:
    host, _, port = replica.url.removeprefix("http://").partition(":")
    return host, int(port)


def pid_of(replica: Replica) -> int:
    if replica.process.pid is None:
        raise RuntimeError("the service has ended")
    return replica.process.pid


if __name__ == "__main__":
    asyncio.run(main())
