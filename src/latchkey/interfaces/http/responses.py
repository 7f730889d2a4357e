"""Response headers of resources: entity tags with `If-Match` (RFC 9110, 13.1.1), and `Location`."""

import re
from typing import Annotated, TypeVar

from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter

from latchkey.domain.artifact import Artifact
from latchkey.domain.errors import Malformed, StaleVersion
from latchkey.domain.task import Task

Versioned = TypeVar("Versioned", bound=Task | Artifact)

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

_ETAG = re.compile(r'(?P<weak>W/)?"(?P<text>[\x21\x23-\x7e\x80-\xff]*)"\Z')
_VERSION = re.compile(r"[1-9]\d{0,8}\Z")


def versioned(resource: Versioned, status_code: int = 200, **headers: str) -> Response[Versioned]:
    """Return a response with the resource as its body and its version as its entity tag."""
    return Response(resource, status_code=status_code, headers={"etag": etag_of(resource), **headers})


def etag_of(resource: Task | Artifact) -> str:
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
