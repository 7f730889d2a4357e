"""A proxy that adds a bearer token to each request, for programs that cannot send headers."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


@asynccontextmanager
async def add_bearer(url: str, bearer: str) -> AsyncIterator[str]:
    """Run the proxy and return its URL. `Host`, `Origin` and all other headers stay unchanged."""
    target = urlsplit(url)
    # One request per connection: everything after the head is its body and need not be parsed.
    added = f"connection: close\r\nauthorization: Bearer {bearer}\r\n".encode()

    async def carry(reader: StreamReader, writer: StreamWriter) -> None:
        first = await reader.readline()
        headers = [line async for line in _head(reader) if not line.lower().startswith(b"connection:")]
        onward_reader, onward = await asyncio.open_connection(target.hostname, target.port)
        onward.writelines([first, added, *headers])
        going = asyncio.create_task(_pump(reader, onward))
        await _pump(onward_reader, writer)
        going.cancel()
        for end in (onward, writer):
            end.close()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield target._replace(netloc=f"{host}:{port}").geturl()


async def _head(reader: StreamReader) -> AsyncIterator[bytes]:
    """The lines up to and including the empty one."""
    line = b""
    while line not in {b"\r\n", b"\n"} and (line := await reader.readline()):
        yield line


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
