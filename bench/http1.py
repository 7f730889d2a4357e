"""A small HTTP/1.1 client over `asyncio.Protocol`: one request at a time per connection, kept open."""

import asyncio
from asyncio import Future, Transport
from typing import NamedTuple, Self, cast

from httptools import HttpResponseParser


class Response(NamedTuple):
    status: int
    body: bytes


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.closed = False
        self._waiter: Future[Response] | None = None
        self._begin()

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, host, port)
        return protocol

    def request(self, raw: bytes) -> Future[Response]:
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        if self.closed:
            waiter.set_exception(ConnectionResetError("closed"))
        else:
            self._transport.write(raw)
        return waiter

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def _begin(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []

    def _fail(self, error: Exception) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(error)

    # callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - every error is passed to the caller
            self._fail(error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(error or ConnectionResetError("closed by the server"))

    # callbacks of httptools

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        answer = Response(parser.get_status_code(), b"".join(self._body))
        if not parser.should_keep_alive():
            self.close()
        self._begin()
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(answer)


class Pool:
    """A pool that opens a new connection if none is idle."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._idle: list[Connection] = []

    async def request(self, raw: bytes) -> Response:
        while self._idle and self._idle[-1].closed:
            self._idle.pop()
        connection = self._idle.pop() if self._idle else await Connection.open(*self._address)
        try:
            answer = await connection.request(raw)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer
