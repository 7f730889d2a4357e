"""Problem details (RFC 9457): every failure as an HTTP response."""

from collections.abc import Mapping
from typing import Any, NoReturn, NotRequired, TypedDict
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ExceptionHandlersMap

from latchkey.domain.errors import Failure, Invalid, Malformed, NotFound, Unauthenticated
from latchkey.domain.turn import FailureCode
from latchkey.domain.undo import UndoConflict
from latchkey.interfaces.errors import MethodNotAllowed, status_of, title_of
from latchkey.interfaces.http.frontends.openai.errors import error_of, is_openai_path

MEDIA_TYPE = "application/problem+json"

_encode = msgspec.json.Encoder().encode


class InternalError(Failure):
    """The service has a bug. Report it with the request id."""


INTERNAL_ERROR = InternalError("Internal error: report it with the request id.")


class Fault(TypedDict):
    """One error in the input: where it is, and what would be valid."""

    path: str
    message: str


class Problem(TypedDict):
    """Problem details (RFC 9457). `code` names the kind of failure, `detail` explains this occurrence.

    `same_request` is true if the running turn was started with the same `Idempotency-Key` and body. `conflicts` lists
    why a turn cannot be undone.
    """

    type: str
    title: str
    status: int
    detail: str
    code: FailureCode
    request_id: str
    errors: NotRequired[list[Fault]]
    turn_id: NotRequired[UUID]
    conversation_id: NotRequired[UUID]
    same_request: NotRequired[bool]
    conflicts: NotRequired[list[UndoConflict]]


def problem_of(failure: Failure, request_id: str, path: str = "") -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the encoded body for a failure of a request for this path.

    Clients of OpenAI's API get their own shape.
    """
    headers = {"content-type": MEDIA_TYPE}
    if isinstance(failure, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if failure.retry_after is not None:
        headers["retry-after"] = str(failure.retry_after)
    status = status_of(failure)
    if is_openai_path(path):
        error_headers, error = error_of(failure)
        return status, {**headers, **error_headers}, _encode(error)
    body: Problem = {
        "type": f"urn:latchkey:problem:{failure.code}",
        "title": title_of(failure),
        "status": status,
        "detail": failure.detail,
        "code": failure.code,
        "request_id": request_id,
    }
    return status, headers, _encode({**body, **failure.members})


def problem_response(
    request: Request[Any, Any, Any],
    failure: Failure,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Return the response to the request for a failure, with additional headers. The log line of the request names it.

    `request_id` is that of the problem, if it is not the request's own.
    """
    request.scope["failure"] = failure  # type: ignore[typeddict-unknown-key]
    request_id = request_id or str(request.scope.get("request_id", ""))
    status, problem_headers, body = problem_of(failure, request_id, request.scope["path"])
    media_type = problem_headers.pop("content-type")
    return Response(body, status_code=status, headers={**problem_headers, **(headers or {})}, media_type=media_type)


def _handle_failure(request: Request[Any, Any, Any], failure: Failure) -> Response[bytes]:
    return problem_response(request, failure)


def _handle_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Answer what Litestar refuses by itself: paths, methods, and parameters that break a rule."""
    if isinstance(error, ValidationException):
        return _handle_failure(request, _invalid_parameters(error))
    match error.status_code:
        case 404:
            return _handle_failure(request, NotFound("There is nothing at this path."))
        case 405:
            failure = MethodNotAllowed(f"{request.method} is not allowed here: the Allow header lists the methods.")
            response = _handle_failure(request, failure)
            response.headers.update(error.headers or {})
            return response
        case status if status < HTTP_500_INTERNAL_SERVER_ERROR:
            return _handle_failure(request, Malformed(error.detail))
    raise error


def _invalid_parameters(error: ValidationException) -> Invalid:
    """Return the failure for query parameters and headers that Litestar refuses; it does not validate bodies here."""
    faults = error.extra if isinstance(error.extra, list) else []
    errors = [{"path": fault.get("key", "$"), "message": fault.get("message", "")} for fault in faults]
    detail = "; ".join(f"{fault['path']}: {fault['message']}" for fault in errors) or error.detail
    return Invalid(detail, errors=errors)


def _reraise(_: Request[Any, Any, Any], error: Exception) -> NoReturn:
    """Leave a bug to `SecurityMiddleware`, which logs and answers all of them in one place."""
    raise error


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    Failure: _handle_failure,
    HTTPException: _handle_http_exception,
    Exception: _reraise,
}
