"""A TCP proxy in front of a server, with fault injection (disconnect, freeze) and a count of the traffic."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.database.postgresql_traffic import Count, TrafficCounter

CHUNK = 65_536


class TcpProxy:
    """Forwards bytes between its own port and the server's port, on loopback."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._counters: dict[asyncio.StreamReader, TrafficCounter] = {}
        self.port = 0

    @property
    def count(self) -> Count:
        """The traffic so far on all connections, without those that have sent LISTEN.

        The event bus uses such a connection for several turns at once, and no request waits for it.
        """
        return sum((counter.count for counter in {*self._counters.values()} if not counter.listens), Count())

    @property
    def round_trips(self) -> int:
        return self.count.round_trips

    @property
    def connections(self) -> int:
        """How many connections it has accepted since the last `disconnect`."""
        return len(self._writers) // 2

    async def restore(self) -> None:
        """Forward again, after `disconnect` or `freeze`."""
        self._flowing.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def disconnect(self) -> None:
        """Abort the open connections and accept no others."""
        if self._listener:
            self._listener.close()
            self._listener = None
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Keep connections open and forward nothing."""
        self._flowing.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {writer, server_writer}
        self._counters[reader] = self._counters[server_reader] = TrafficCounter()
        for source, sink, from_server in ((reader, server_writer, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._forward(source, sink, from_server=from_server))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, from_server: bool) -> None:
        counter = self._counters[source]
        try:
            while chunk := await source.read(CHUNK):
                await self._flowing.wait()
                counter.observe(chunk, from_server=from_server)
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            return  # one side is closed: the other is closed below
        finally:
            sink.close()


@asynccontextmanager
async def proxy_to(server_port: int) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(server_port)
    await proxy.restore()
    try:
        yield proxy
    finally:
        await proxy.restore()
        await proxy.disconnect()
