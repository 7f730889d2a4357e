"""Streamable HTTP for all protocol versions: one JSON-RPC message in, one JSON response out, no session.

This module replaces the SDK's `StreamableHTTPSessionManager(stateless=True, json_response=True)`, because that needs
much more CPU time per call. It is the only module that uses undocumented names of the SDK. If an SDK release breaks
them, pass the SDK's manager to `McpEndpoint` instead, as `tests/integration/mcp/sdk_transport.py` does.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import anyio
import msgspec
from mcp import MCPError
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
)
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    DEFAULT_NEGOTIATED_VERSION,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    ErrorData,
    JSONRPCNotification,
    JSONRPCRequest,
    RequestId,
    jsonrpc_message_adapter,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from msgspec import Struct
from pydantic import ValidationError

from latchkey.domain.errors import Failure, UnsupportedMediaType
from latchkey.interfaces.errors import check_media_type
from latchkey.interfaces.mcp.http.endpoint import TransportResult
from latchkey.interfaces.mcp.http.responses import Header, HttpResponse, failure_of, failure_response
from latchkey.interfaces.mcp.principal import HANDLED_METHODS, HandlerError, RequestFailure

_JSON = "application/json"
_NO_MESSAGE = ErrorData(code=INVALID_REQUEST, message="Send one JSON-RPC request or notification as the body.")
_NOT_ACCEPTABLE = ErrorData(code=INVALID_REQUEST, message=f"The response is {_JSON}: accept it.")
_ACCEPTED = TransportResult(HttpResponse(202))
_TRANSPORT_CONTEXT = TransportContext(kind="streamable-http", can_send_request=False)

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("latchkey.mcp")


class _Outcome(Struct, frozen=True):
    """The result of a request, or its error; then as in `TransportResult`. `cause` is the handler's, for the log."""

    result: dict[str, Any] | None = None
    error: ErrorData | None = None
    verified: bool = False
    failure: Failure | None = None
    cause: Failure | None = None


class StatelessTransport:
    """A transport that calls the SDK's request handler kernel directly."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._lifespan_state: Any = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the lifespan of the server."""
        async with self._server.lifespan(self._server) as state:
            self._lifespan_state = state
            yield
        self._lifespan_state = None

    async def handle(self, headers: Iterable[Header], message: Any) -> TransportResult:
        """Handle a message. The protocol version in its headers decides which rules apply."""
        if self._lifespan_state is None:
            raise RuntimeError("Enter `run()` before serving.")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        fields = dict(pairs)
        try:
            check_media_type(fields.get("content-type", ""), (_JSON,))
        except UnsupportedMediaType as failure:
            return TransportResult(failure_response(failure))
        if not _accepts_json(fields.get("accept", "")):
            return TransportResult(_error_response(406, None, _NOT_ACCEPTABLE))
        version = fields.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            return await self._handle_handshake_version(version, message)
        if isinstance(message, dict) and "id" not in message:
            return _handle_notification(version, message)
        return await self._handle_modern_version(pairs, fields, message)

    async def _handle_handshake_version(self, version: str, message: Any) -> TransportResult:
        """Versions up to 2025-11-25. A client's response to a request of the server is accepted and ignored."""
        try:
            parsed = jsonrpc_message_adapter.validate_python(message, by_name=False)
        except ValidationError:
            return TransportResult(_error_response(400, None, _NO_MESSAGE))
        if not isinstance(parsed, JSONRPCRequest):
            return _ACCEPTED
        outcome = await self._run(parsed, Connection.from_envelope(version, None, None))
        return _transport_result(parsed.id, outcome, 200)

    async def _handle_modern_version(
        self, pairs: list[tuple[str, str]], fields: dict[str, str], message: Any
    ) -> TransportResult:
        """Versions from 2026-07-28: headers repeat parts of the message, and errors have HTTP statuses."""
        try:
            request = JSONRPCRequest.model_validate(message)
        except ValidationError:
            return _rejected(None, _NO_MESSAGE)
        if len(fields) < len(pairs) and (name := find_duplicated_routing_header(pairs)) is not None:
            return _rejected(
                request.id, ErrorData(code=HEADER_MISMATCH, message=f"Duplicate header {name}: send it once.")
            )
        route = classify_inbound_request(message, headers=fields)
        if isinstance(route, InboundLadderRejection):
            return _rejected(request.id, _error_of(route))
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        outcome = await self._run(request, connection)
        return _transport_result(request.id, outcome, _status_of(outcome.error))

    async def _run(self, request: JSONRPCRequest, connection: Connection) -> _Outcome:
        """Run the request. The error of a bug contains no details."""
        runner = ServerRunner(self._server, connection, self._lifespan_state)
        try:
            async with connection.exit_stack:
                result = await runner.on_request(OneShotDispatchContext(request.id), request.method, request.params)
        except RequestFailure as error:
            return _Outcome(error=error.error, failure=error.failure)
        except HandlerError as error:
            return _Outcome(error=error.error, verified=True, cause=error.failure)
        except MCPError as error:
            return _Outcome(error=error.error)
        except ValidationError:
            return _Outcome(error=ErrorData(code=INVALID_PARAMS, message="Invalid request parameters", data=""))
        except Exception:  # noqa: BLE001 - logged; otherwise the message would have no response
            _log.exception("mcp_request_failed")
            return _Outcome(error=ErrorData(code=INTERNAL_ERROR, message="Internal error"))
        return _Outcome(result=result, verified=request.method in HANDLED_METHODS)


class OneShotDispatchContext:
    """The SDK's `DispatchContext` for a request whose only response is one JSON body.

    A client that disconnects does not stop its call, so nothing is ever cancelled.
    """

    transport = _TRANSPORT_CONTEXT
    can_send_request = False
    message_metadata = None

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id

    @property
    def cancel_requested(self) -> anyio.Event:
        """An event that is never set."""
        return anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises `NoBackChannelError`: the server cannot send requests to the client."""
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Drop the notification: there is no stream to send it on."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Drop the progress: there is no stream to send it on."""


def _handle_notification(version: str, message: dict[str, Any]) -> TransportResult:
    """No notification of a client has an effect; a malformed one, or one of an unknown version, is rejected."""
    try:
        JSONRPCNotification.model_validate(message)
    except ValidationError:
        return _rejected(None, _NO_MESSAGE)
    unsupported = unsupported_protocol_version_rejection(version)
    return _ACCEPTED if unsupported is None else _rejected(None, _error_of(unsupported))


def _transport_result(id: RequestId, outcome: _Outcome, status: int) -> TransportResult:
    if outcome.error is None:
        response = HttpResponse(status, _encode({"jsonrpc": "2.0", "id": id, "result": outcome.result}))
    else:
        response = _error_response(status, id, outcome.error, outcome.cause)
    return TransportResult(response, outcome.verified, outcome.failure)


def _rejected(id: RequestId | None, error: ErrorData) -> TransportResult:
    return TransportResult(_error_response(_status_of(error), id, error))


def _status_of(error: ErrorData | None) -> int:
    """Return the HTTP status that the current protocol assigns to some error codes."""
    return 200 if error is None else ERROR_CODE_HTTP_STATUS.get(error.code, 200)


def _error_of(rejection: InboundLadderRejection) -> ErrorData:
    return ErrorData(code=rejection.code, message=rejection.message, data=rejection.data)


def _error_response(status: int, id: RequestId | None, error: ErrorData, cause: Failure | None = None) -> HttpResponse:
    """Return a JSON-RPC error as a response, with the failure whose code the log shows."""
    body = _encode({"jsonrpc": "2.0", "id": id, "error": error.model_dump(mode="json", exclude_none=True)})
    return HttpResponse(status, body, failure=cause or failure_of(error.code, error.message))


@lru_cache(64)
def _accepts_json(accept: str) -> bool:
    """Whether the client accepts JSON (RFC 9110, 12.5.1)."""
    media_types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not media_types.isdisjoint({_JSON, "application/*", "*/*"})
