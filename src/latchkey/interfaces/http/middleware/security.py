"""The outermost layer: allowed hosts and origins, request id, security headers, log line, and the answer to bugs."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import LitestarException
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars
from uuid_utils import uuid7

from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.errors import Failure, Forbidden, Malformed, Unavailable, cause_of
from latchkey.interfaces.errors import Misdirected
from latchkey.interfaces.http.middleware.throttle import PROBE_DELAY_S, AnonymousThrottle
from latchkey.interfaces.http.problems import INTERNAL_ERROR, problem_of
from latchkey.interfaces.http.server.response_budget import LARGE_BYTES, RESPONSES

_log = logging.getLogger("latchkey.http")
_PORT = re.compile(r":\d+\Z")
_CLOSE = (b"connection", b"close")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Does not affect CORS requests of allowed origins: it blocks embedding without CORS.
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""From the OWASP REST security cheat sheet: no content sniffing, no execution or framing in a browser."""
_NO_STORE = (b"cache-control", b"no-store")
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
"""For this host and one year. Without `includeSubDomains`: subdomains may belong to other services."""
_MAX_METHOD_CHARS = 16
_BAD_REQUEST, _SERVER_ERROR = 400, 500
_PROBES = frozenset((method, path) for method in ("GET", "HEAD") for path in ("/health/live", "/health/ready"))
"""Answered for every host: kubelets and load balancers send the address of the process. The bodies are constant."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


_OWN_HEADERS = "latchkey_own_headers"


def keep_own_headers(scope: HTTPScope, *names: str) -> None:
    """Leave these security headers of the response as its handler sets them, unless the response is a problem."""
    scope[_OWN_HEADERS] = frozenset(name.encode() for name in names)  # type: ignore[literal-required]


LogRequest = Callable[[Mapping[str, object]], None]
"""Logs one request with these keys."""


class SecurityMiddleware:
    """Wraps the whole application, Litestar's own error handling included.

    - `hosts`, `origins`: allowed `Host` and `Origin` values; without a port, a value allows each of its ports.
    - `runner`: while it drains, each response closes its connection, so that the client's next request reaches
      another process.
    - Requests for which the application verifies no credential (`user` in the scope) are throttled, whatever their
      status: before they are processed if they have no `Authorization` header, otherwise before the response.
    - `by_https`: clients reach the service by https, and responses instruct them to keep to it (RFC 6797).
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        origins: Iterable[str],
        runner: TurnRunner,
        log_request: LogRequest,
        *,
        by_https: bool,
    ) -> None:
        self._app = app
        self._throttle = AnonymousThrottle()
        self._probe_throttle = AnonymousThrottle(PROBE_DELAY_S)
        self._runner = runner
        self._log_request = log_request
        self._headers = [_NO_STORE, *_SECURITY_HEADERS, *([_HTTPS_ONLY] if by_https else [])]
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        # Whitespace around a value is not part of it (RFC 9110, 5.5); the server keeps it at the end.
        scope["headers"] = raw_headers = [(name, value.rstrip(b" \t")) for name, value in scope["headers"]]
        headers = dict(raw_headers)
        request_id = _request_id(headers.get(b"x-request-id"))
        scope["request_id"] = request_id  # type: ignore[typeddict-unknown-key]
        has_credential = b"authorization" in headers
        started = perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if has_credential and scope.get("user") is None:
                    # The credential is not valid, or the request was refused before it was verified.
                    await self._throttle.wait()
                id_header = (b"x-request-id", request_id.encode())
                close = (_CLOSE,) if self._runner.is_draining else ()
                own = scope.get(_OWN_HEADERS) if status < _BAD_REQUEST else None
                added = self._headers if own is None else self._headers_without(own)
                message["headers"] = [*message["headers"], id_header, *added, *close]
            await send(message)

        budgeted_send = _BudgetedSend(scope, send_with_headers)
        bound = bind_contextvars(request_id=request_id)
        try:
            if not has_credential:
                await self._wait_for_turn(scope)
            self._check_host_and_origin(scope, raw_headers, headers)
            await self._app(scope, receive, budgeted_send)
        except Exception as error:  # noqa: BLE001  # bugs are logged, and the client receives or sees the failure
            failure = _failure_of(error)
            if failure is INTERNAL_ERROR:
                _log.exception("unhandled_exception")
            scope["failure"] = failure  # type: ignore[typeddict-unknown-key]
            if status is None:
                await _send_problem(failure, scope, send_with_headers)
            # Otherwise the response stays incomplete, so that the server closes the connection and the client sees it.
        finally:
            if budgeted_send.reservation is not None:
                await budgeted_send.reservation.aclose()
            self._log_request(_log_fields(scope, status, started))
            reset_contextvars(**bound)

    def _headers_without(self, names: Any) -> list[tuple[bytes, bytes]]:
        return [header for header in self._headers if header[0] not in names]

    async def _wait_for_turn(self, scope: HTTPScope) -> None:
        """Delay a request without a credential before it costs anything. Raises `Exhausted`, but not for a probe."""
        if (scope["method"], scope["path"]) in _PROBES:
            await self._probe_throttle.wait()
        else:
            await self._throttle.wait_or_refuse()

    def _check_host_and_origin(
        self, scope: HTTPScope, raw_headers: Collection[tuple[bytes, bytes]], headers: dict[bytes, bytes]
    ) -> None:
        """Prevent DNS rebinding and requests by foreign pages. Raises `Malformed`, `Misdirected` and `Forbidden`."""
        if len(raw_headers) > len(headers):
            names = [name for name, _ in raw_headers]
            for name in (b"host", b"origin"):
                if names.count(name) > 1:
                    raise Malformed(f"Duplicate {name.decode().title()} header: send it once.")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not _is_allowed(self._hosts, host) and (scope["method"], scope["path"]) not in _PROBES:
            raise Misdirected("This service does not serve the requested host: see LATCHKEY_ALLOWED_HOSTS.")
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and not _is_allowed(self._origins, origin):
            raise Forbidden("Requests from this origin are not allowed: see LATCHKEY_ALLOWED_ORIGINS.")


def _failure_of(error: BaseException | None) -> Failure:
    """Return the failure that ended a request: while a response streams, it is the cause of Litestar's exceptions."""
    while isinstance(error, LitestarException | BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    return error if isinstance(error, Failure) else INTERNAL_ERROR


class _BudgetedSend:
    """Sends a large response if this process has room for it, and otherwise 503 in its place."""

    def __init__(self, scope: HTTPScope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._is_refused = False
        self.reservation: AsyncExitStack | None = None

    async def __call__(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start" and (size := _content_length(message["headers"])) >= LARGE_BYTES:
            user = self._scope.get("user")
            self.reservation = AsyncExitStack()
            try:
                await self.reservation.enter_async_context(RESPONSES.reserve(user.user_id if user else None, size))
            except Unavailable as failure:
                self._is_refused = True
                self._scope["failure"] = failure  # type: ignore[typeddict-unknown-key]
                cors = [header for header in message["headers"] if header[0].lower().startswith(b"access-control-")]
                await _send_problem(failure, self._scope, self._send, cors)
                return
        await self._send(message)


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _log_fields(scope: HTTPScope, status: int | None, started: float) -> dict[str, object]:
    """Return what the log says about a request; without a status, the client left before the response.

    It has the template of the route, because a path may contain anything, and no query. The application sets `user`
    once a credential has been verified, and `failure`.
    """
    failure, user = scope.get("failure"), scope.get("user")
    fields: dict[str, object] = {
        "method": scope["method"][:_MAX_METHOD_CHARS],
        "route": scope.get("path_template") or None,
        "status": status,
        "code": failure.code if isinstance(failure, Failure) else None,
        "user_id": user.user_id if user else None,
        "duration_ms": round((perf_counter() - started) * 1000, 2),
    }
    if status is not None and status >= _SERVER_ERROR and isinstance(failure, Failure) and (cause := cause_of(failure)):
        fields["cause"] = cause
    return fields


def _is_allowed(allowed: frozenset[str], value: str) -> bool:
    """Whether the host or origin is allowed, with its port or without: `localhost` also allows `localhost:8000`."""
    if value in allowed:
        return True
    without_port = _PORT.sub("", value)
    return without_port in allowed and not _PORT.search(without_port)


def _request_id(header: bytes | None) -> str:
    """Return the client's request id if it is safe to log, and a new one otherwise."""
    return header.decode() if header and _REQUEST_ID.match(header) else str(uuid7())


async def _send_problem(
    failure: Failure, scope: HTTPScope, send: Send, more_headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    status, headers, body = problem_of(failure, str(scope.get("request_id")), scope["path"])
    encoded = [*((name.encode(), value.encode()) for name, value in headers.items()), *more_headers]
    encoded.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})
