"""Streamable HTTP for both eras of the protocol: one message in, one JSON body out, and no session."""

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from mcp import MCPError
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
)
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
from pydantic import ValidationError

from latchkey.domain.errors import UnsupportedMediaType
from latchkey.interfaces.mcp.http.dispatch_context import OneShotDispatchContext
from latchkey.interfaces.mcp.http.errors import refusal_of
from latchkey.interfaces.mcp.http.response import Header, HttpResponse

_JSON = "application/json"
_NO_MESSAGE = ErrorData(code=INVALID_REQUEST, message="Send one JSON-RPC request or notification as the body.")
_NOT_ACCEPTABLE = ErrorData(code=INVALID_REQUEST, message=f"The answer is {_JSON}: accept it.")
_ACCEPTED = HttpResponse(202)

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("latchkey.mcp")

Headers = dict[str, str]


class Transport:
    """Answers messages with the SDK's models, checks and kernel.

    The SDK's own `StreamableHTTPSessionManager` wraps each message in a request and a response of Starlette's, and
    in the older era in a task with four streams: 60 us of a call, and 270 in the older era.
    """

    def __init__(self, server: Server[Any], lifespan_state: Any) -> None:
        self._server = server
        self._lifespan_state = lifespan_state

    async def answer(self, given: Iterable[Header], message: Any) -> HttpResponse:
        """The answer to a message, whatever JSON it is. The version in the headers says of which era it is."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in given]
        headers = dict(pairs)
        if not _is_json(headers.get("content-type", "")):
            return refusal_of(UnsupportedMediaType(f"Send the body as {_JSON}."))
        if not _takes_json(headers.get("accept", "")):
            return HttpResponse(406, _failed(None, _NOT_ACCEPTABLE))
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            return await self._answer_in_session_era(version, message)
        if isinstance(message, dict) and "id" not in message:
            return _acknowledgement(version, message)
        return await self._answer_in_current_era(pairs, headers, message)

    async def _answer_in_session_era(self, version: str, message: Any) -> HttpResponse:
        try:
            received = jsonrpc_message_adapter.validate_python(message, by_name=False)
        except ValidationError:
            return HttpResponse(400, _failed(None, _NO_MESSAGE))
        if not isinstance(received, JSONRPCRequest):
            return _ACCEPTED
        answer = await self._perform(received, Connection.from_envelope(version, None, None))
        return HttpResponse(
            200, _failed(received.id, answer) if isinstance(answer, ErrorData) else _done(received.id, answer)
        )

    async def _answer_in_current_era(
        self, pairs: list[tuple[str, str]], headers: Headers, message: Any
    ) -> HttpResponse:
        try:
            request = JSONRPCRequest.model_validate(message)
        except ValidationError:
            return _refused(None, _NO_MESSAGE)
        if len(headers) < len(pairs) and (name := find_duplicated_routing_header(pairs)) is not None:
            twice = ErrorData(code=HEADER_MISMATCH, message=f"{name} header appears more than once")
            return _refused(request.id, twice)
        route = classify_inbound_request(message, headers=headers)
        if isinstance(route, InboundLadderRejection):
            return _refused(request.id, _error_of(route))
        caller = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        answer = await self._perform(request, caller)
        if isinstance(answer, ErrorData):
            return _refused(request.id, answer)
        return HttpResponse(200, _done(request.id, answer))

    async def _perform(self, request: JSONRPCRequest, connection: Connection) -> dict[str, Any] | ErrorData:
        """The result, or what went wrong; of a bug nobody is told more than that there is one."""
        runner = ServerRunner(self._server, connection, self._lifespan_state)
        try:
            async with connection.exit_stack:
                return await runner.on_request(OneShotDispatchContext(request.id), request.method, request.params)
        except MCPError as error:
            return error.error
        except ValidationError:
            return ErrorData(code=INVALID_PARAMS, message="Invalid request parameters", data="")
        except Exception:  # noqa: BLE001 - it is logged, and nobody else would answer the message
            _log.exception("An MCP request failed.")
            return ErrorData(code=INTERNAL_ERROR, message="Internal error")


def _acknowledgement(version: str, message: dict[str, Any]) -> HttpResponse:
    """No notification of a client means anything here. A malformed one, or of an unknown version, is told so."""
    try:
        JSONRPCNotification.model_validate(message)
    except ValidationError:
        return _refused(None, _NO_MESSAGE)
    unsupported = unsupported_protocol_version_rejection(version)
    return _ACCEPTED if unsupported is None else _refused(None, _error_of(unsupported))


def _error_of(rejection: InboundLadderRejection) -> ErrorData:
    return ErrorData(code=rejection.code, message=rejection.message, data=rejection.data)


def _refused(id: RequestId | None, error: ErrorData) -> HttpResponse:
    """With the status that the current protocol has for some codes."""
    return HttpResponse(ERROR_CODE_HTTP_STATUS.get(error.code, 200), _failed(id, error))


def _failed(id: RequestId | None, error: ErrorData) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "error": error.model_dump(mode="json", exclude_none=True)})


def _done(id: RequestId, result: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "result": result})


@lru_cache(64)
def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == _JSON


@lru_cache(64)
def _takes_json(accept: str) -> bool:
    """Whether JSON is among what a client accepts (RFC 9110, 12.5.1)."""
    taken = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not taken.isdisjoint({_JSON, "application/*", "*/*"})
