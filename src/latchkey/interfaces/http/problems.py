"""Problem details (RFC 9457): how every failure looks over HTTP."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from latchkey.domain.errors import Failure, Invalid, Malformed, NotFound, TooLarge, Unauthenticated
from latchkey.interfaces.errors import MethodNotAllowed, retry_after, status_of, title_of

MEDIA_TYPE = "application/problem+json"

OUR_MISTAKE = Failure("The service made a mistake: name the request id when you report it.")
_encode = msgspec.json.Encoder().encode


def problem(failure: Failure, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of a failure."""
    headers = {"content-type": MEDIA_TYPE}
    if isinstance(failure, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if (seconds := retry_after(failure)) is not None:
        headers["retry-after"] = str(seconds)
    status = status_of(failure)
    body = {
        "type": f"urn:latchkey:problem:{failure.code}",
        "title": title_of(failure),
        "status": status,
        "detail": failure.detail,
        "code": failure.code,
        "request_id": request_id,
        **failure.members,
    }
    return status, headers, _encode(body)


def _answer(request: Request[Any, Any, Any], failure: Failure) -> Response[bytes]:
    status, headers, body = problem(failure, str(request.scope.get("request_id", "")))
    media_type = headers.pop("content-type")
    return Response(body, status_code=status, headers=headers, media_type=media_type)


def _of_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """What the framework refuses by itself: routes, methods, query parameters and sizes."""
    if isinstance(error, ValidationException):
        return _answer(request, _of_validation(error))
    match error.status_code:
        case 404:
            return _answer(request, NotFound("There is nothing at this path."))
        case 405:
            response = _answer(request, MethodNotAllowed(f"{request.method} is not a method of this path."))
            response.headers.update(error.headers or {})
            return response
        case 413:
            return _answer(request, TooLarge("The body is larger than this service takes."))
        case status if status < 500:
            return _answer(request, Malformed(error.detail))
    raise error


def _of_validation(error: ValidationException) -> Invalid:
    """Only query and path parameters are checked by the framework."""
    found = error.extra if isinstance(error.extra, list) else []
    errors = [{"path": item.get("key", "$"), "message": item.get("message", "")} for item in found]
    detail = "; ".join(f"{item['path']}: {item['message']}" for item in errors) or error.detail
    return Invalid(detail, errors=errors)


EXCEPTION_HANDLERS: ExceptionHandlersMap = {Failure: _answer, HTTPException: _of_litestar}
