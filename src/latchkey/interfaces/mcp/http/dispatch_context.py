"""One request and its answer, as the SDK's kernel sees them: nothing goes either way in between."""

from collections.abc import Mapping
from typing import Any

import anyio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import RequestId

from latchkey.interfaces.mcp.results import JSON_BODY

_OVER_HTTP = TransportContext(kind="streamable-http", can_send_request=False)


class OneShotDispatchContext:
    """The SDK's `DispatchContext` where the answer is one JSON body.

    A client that leaves does not stop its call, so nothing is ever cancelled here either.
    """

    transport = _OVER_HTTP
    can_send_request = False
    message_metadata = ServerMessageMetadata(request_context=JSON_BODY)

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id

    @property
    def cancel_requested(self) -> anyio.Event:
        """Never set."""
        return anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """There is no stream for it to go on."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """There is no stream for it to go on."""
