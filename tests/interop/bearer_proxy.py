"""A way in for a program that cannot send a header: each request goes on as it came, with a bearer."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


@asynccontextmanager
async def adding_bearer(url: str, bearer: str) -> AsyncIterator[str]:
    """The same address on another port of loopback. `Host`, `Origin` and all the rest stay as the client wrote them."""
    target = urlsplit(url)
    # One request a connection: then whatever follows the first head is its body, and need not be understood.
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
    """Up to the empty line, and with it."""
    line = b""
    while line not in {b"\r\n", b"\n"} and (line := await reader.readline()):
        yield line


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
