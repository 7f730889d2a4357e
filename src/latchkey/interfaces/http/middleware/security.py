"""The outermost layer: whom the service answers to at all, the request's id, and what nobody else has caught."""

import logging
import re
from collections.abc import Callable, Collection, Iterable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars
from uuid_utils import uuid7

from latchkey.domain.errors import Failure, Forbidden, Malformed
from latchkey.interfaces.errors import Misdirected
from latchkey.interfaces.http.middleware.throttle import RefusalThrottle
from latchkey.interfaces.http.problems import INTERNAL_ERROR, problem

_log = logging.getLogger("latchkey.http")
_PORT = re.compile(r":\d+\Z")
_LEAVING = (b"connection", b"close")
_PROTECTION = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Pages of allowed origins ask by CORS, which this says nothing about: it is for those that do not ask at all.
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""After OWASP's REST security cheat sheet: an answer is kept by nobody, read as what it says it is, and run nowhere."""
_HTTPS_ALONE = (b"strict-transport-security", b"max-age=31536000")
"""For this host and a year. Not for hosts below it, which are not ours to speak for."""
_REFUSED = frozenset({401, 403, 421})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


class SecurityMiddleware:
    """Wraps the whole application. A host or origin without a port stands for each of its ports.

    A process that is about to end asks its clients to connect anew for their next request: elsewhere.
    Where clients come by https, they are told to come by nothing else.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        origins: Iterable[str],
        is_leaving: Callable[[], bool],
        *,
        by_https: bool,
    ) -> None:
        self._app = app
        self._throttle = RefusalThrottle()
        self._is_leaving = is_leaving
        self._always = [*_PROTECTION, _HTTPS_ALONE] if by_https else _PROTECTION
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        # What stands around a value is no part of it (RFC 9110, 5.5): the server leaves what stands behind it.
        scope["headers"] = given = [(name, value.rstrip(b" \t")) for name, value in scope["headers"]]
        headers = dict(given)
        request_id = _request_id(headers.get(b"x-request-id"))
        scope["request_id"] = request_id  # type: ignore[typeddict-unknown-key]
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] in _REFUSED:
                    await self._throttle.wait()
                added = (b"x-request-id", request_id.encode())
                leaving = (_LEAVING,) if self._is_leaving() else ()
                message["headers"] = [*message["headers"], added, *self._always, *leaving]
            await send(message)

        bound = bind_contextvars(request_id=request_id)
        try:
            self._check(given, headers)
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            failure = error if isinstance(error, Failure) else INTERNAL_ERROR
            if failure is INTERNAL_ERROR:
                _log.exception("unhandled")
            if started:
                raise
            await _send(failure, request_id, send_with_headers)
        finally:
            reset_contextvars(**bound)

    def _check(self, given: Collection[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> None:
        """DNS rebinding and foreign pages end here. Raises `Malformed`, `Misdirected` and `Forbidden`."""
        if len(given) > len(headers):
            names = [name for name, _ in given]
            for name in (b"host", b"origin"):
                if names.count(name) > 1:
                    raise Malformed(f"Send one {name.decode().title()} header: there are two.")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not _is_among(self._hosts, host):
            raise Misdirected("This service does not answer for that host: LATCHKEY_ALLOWED_HOSTS lists those it does.")
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and not _is_among(self._origins, origin):
            raise Forbidden("Pages of that origin may not call this: LATCHKEY_ALLOWED_ORIGINS lists those that may.")


def _is_among(allowed: frozenset[str], given: str) -> bool:
    """`localhost:8000`, where that or `localhost` is allowed; of origins the same."""
    if given in allowed:
        return True
    bare = _PORT.sub("", given)
    return bare in allowed and not _PORT.search(bare)


def _request_id(given: bytes | None) -> str:
    """The caller's id if it is one that can be logged as it is, otherwise a new one."""
    return given.decode() if given and _REQUEST_ID.match(given) else str(uuid7())


async def _send(failure: Failure, request_id: str, send: Send) -> None:
    status, headers, body = problem(failure, request_id)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    encoded.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})
