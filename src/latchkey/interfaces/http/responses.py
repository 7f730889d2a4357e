"""Responses with resources: entity tags with `If-Match` (RFC 9110, 13.1.1), `Location`, and idempotency keys."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec
from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter
from msgspec import Struct

from latchkey.application.access import name_of
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.errors import Malformed, StaleVersion
from latchkey.domain.ports import UnitOfWork
from latchkey.interfaces.http.requests import JSON, REPLAYED, ApiRequest, idempotency_of

P = ParamSpec("P")
R = TypeVar("R")


class HasVersion(Protocol):
    """A resource with a version, which counts from 1."""

    @property
    def version(self) -> int: ...


Versioned = TypeVar("Versioned", bound=HasVersion)

ETAG = ResponseHeader(name="ETag", documentation_only=True, description='The version, as an entity tag: `"3"`.')
LOCATION = ResponseHeader(name="Location", documentation_only=True, description="The path of the new resource.")

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="Make the change only if this is the current entity tag of the resource.",
        schema_extra={"pattern": r'^(?:\*|(?:W/)?"[!#-~]*")$'},
    ),
]

CONTENT_ETAG = ResponseHeader(name="ETag", documentation_only=True, description="A digest of the content.")
IfNoneMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-None-Match",
        description="Send the content only if none of these is its current entity tag; otherwise the response is 304.",
    ),
]


class _StoredResponse(Struct, frozen=True):
    """A response as it is stored with its idempotency key. The body is JSON."""

    status: int
    headers: dict[str, str]
    body: str


async def respond_once(
    request: ApiRequest,
    dispatcher: Dispatcher,
    idempotency_key: str | None,
    respond: Callable[[R], Response[R]],
    use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response[R]:
    """Run a use case and return the response to its result; with a known idempotency key return the stored response.

    A request is identified by its use case and the positional arguments. Raises what `Dispatcher.call_once` raises, and
    `Malformed` for an invalid key.
    """
    if idempotency_key is None:
        return respond(await dispatcher.call(request.user, use_case, *args, **kwargs))
    idempotency = idempotency_of(idempotency_key, [name_of(use_case), *args])
    response = await dispatcher.call_once(
        request.user, idempotency, lambda result: _encode_response(respond(result)), use_case, *args, **kwargs
    )
    stored = msgspec.json.decode(response.encoded, type=_StoredResponse)
    headers = {**stored.headers, REPLAYED.name: "true"} if response.is_replay else stored.headers
    return Response(stored.body.encode(), status_code=stored.status, headers=headers, media_type=JSON)  # type: ignore[arg-type]  # encoded already


def _encode_response(response: Response[R]) -> str:
    body = msgspec.json.encode(response.content).decode()
    stored = _StoredResponse(response.status_code or 200, dict(response.headers), body)
    return msgspec.json.encode(stored).decode()


_ETAG = re.compile(r'(?P<weak>W/)?"(?P<text>[\x21\x23-\x7e\x80-\xff]*)"\Z')
_VERSION = re.compile(r"[1-9]\d{0,8}\Z")


def versioned(resource: Versioned, status_code: int = 200, **headers: str) -> Response[Versioned]:
    """Return a response with the resource as its body and its version as its entity tag."""
    return Response(resource, status_code=status_code, headers={"etag": etag_of(resource), **headers})


def etag_of(resource: HasVersion) -> str:
    """Return the version of a resource as a strong entity tag."""
    return f'"{resource.version}"'


def version_of(if_match: str | None) -> int | None:
    """Return the version that `If-Match` demands, or None without the header and for `*`.

    Raises `Malformed`, and `StaleVersion` for a tag that no version can have.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _ETAG.match(if_match.strip())
    if tag is None:
        raise Malformed('If-Match: send one entity tag as it was received, such as "3", or *.')
    if tag["weak"] or not _VERSION.match(tag["text"]):
        raise StaleVersion(f"No version has the entity tag {tag[0]}: read the resource again.")
    return int(tag["text"])


def is_current(if_none_match: str | None, etag: str) -> bool:
    """Whether `If-None-Match` lists the entity tag (RFC 9110, 13.1.2). Tags are compared weakly, and `*` is any."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or tags == ["*"]
