"""A wire to a server that a test can cut, silence and mend, and on which it can count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.database.talk import Count, Talk

CHUNK = 65_536


class Wire:
    """Passes bytes on between its port and a server's, on loopback."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._ends: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._talks: dict[asyncio.StreamReader, Talk] = {}
        self.port = 0

    @property
    def count(self) -> Count:
        """What was said so far, on all connections together but the one that listens.

        Over that others are told what happened, for several turns at once, and nobody waits for it.
        """
        return sum((talk.count for talk in {*self._talks.values()} if not talk.listens), Count())

    @property
    def round_trips(self) -> int:
        return self.count.round_trips

    async def mend(self) -> None:
        self._flowing.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """What is open breaks, and nobody listens."""
        if self._listener:
            self._listener.close()
            self._listener = None
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def silence(self) -> None:
        """What is open stays open, and nothing comes through."""
        self._flowing.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._ends |= {writer, server_writer}
        self._talks[reader] = self._talks[server_reader] = Talk()
        for source, sink, by_server in ((reader, server_writer, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._pass(source, sink, by_server=by_server))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, by_server: bool) -> None:
        talk = self._talks[source]
        try:
            while chunk := await source.read(CHUNK):
                await self._flowing.wait()
                talk.hear(chunk, by_server=by_server)
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            return  # one end is gone: so is the other, below
        finally:
            sink.close()


@asynccontextmanager
async def wire_to(server_port: int) -> AsyncIterator[Wire]:
    wire = Wire(server_port)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.mend()
        await wire.cut()
