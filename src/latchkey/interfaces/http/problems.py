"""Problem details (RFC 9457): how every failure looks over HTTP."""

from collections.abc import Mapping
from typing import Any, NoReturn, NotRequired, TypedDict
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ExceptionHandlersMap

from latchkey.domain.errors import Failure, Invalid, Malformed, NotFound, Unauthenticated
from latchkey.interfaces.errors import MethodNotAllowed, status_of, title_of

MEDIA_TYPE = "application/problem+json"

_encode = msgspec.json.Encoder().encode


class InternalError(Failure):
    """The service made a mistake. Name the request id when you report it."""


INTERNAL_ERROR = InternalError("The service made a mistake: name the request id when you report it.")


class Fault(TypedDict):
    """One thing that is wrong with an input: where, and what would be right."""

    path: str
    message: str


class Problem(TypedDict):
    """Problem details (RFC 9457). `code` says what happened in a word, `detail` for this one request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: NotRequired[list[Fault]]
    turn_id: NotRequired[UUID]
    conversation_id: NotRequired[UUID]


def problem(failure: Failure, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of a failure."""
    headers = {"content-type": MEDIA_TYPE}
    if isinstance(failure, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if failure.retry_after is not None:
        headers["retry-after"] = str(failure.retry_after)
    status = status_of(failure)
    body: Problem = {
        "type": f"urn:latchkey:problem:{failure.code}",
        "title": title_of(failure),
        "status": status,
        "detail": failure.detail,
        "code": failure.code,
        "request_id": request_id,
    }
    return status, headers, _encode({**body, **failure.members})


def problem_response(failure: Failure, request_id: str, added: Mapping[str, str] | None = None) -> Response[bytes]:
    """A failure as an answer, with headers added."""
    status, headers, body = problem(failure, request_id)
    media_type = headers.pop("content-type")
    return Response(body, status_code=status, headers={**headers, **(added or {})}, media_type=media_type)


def _answer(request: Request[Any, Any, Any], failure: Failure) -> Response[bytes]:
    return problem_response(failure, str(request.scope.get("request_id", "")))


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
        case status if status < HTTP_500_INTERNAL_SERVER_ERROR:
            return _answer(request, Malformed(error.detail))
    raise error


def _of_validation(error: ValidationException) -> Invalid:
    """Only query parameters and headers are checked by the framework."""
    found = error.extra if isinstance(error.extra, list) else []
    errors = [{"path": item.get("key", "$"), "message": item.get("message", "")} for item in found]
    detail = "; ".join(f"{item['path']}: {item['message']}" for item in errors) or error.detail
    return Invalid(detail, errors=errors)


def _leave_to_the_edge(_: Request[Any, Any, Any], error: Exception) -> NoReturn:
    """Our mistakes are logged and answered in one place, which no request can get around."""
    raise error


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    Failure: _answer,
    HTTPException: _of_litestar,
    Exception: _leave_to_the_edge,
}
