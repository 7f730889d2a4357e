"""Entity tags (RFC 9110, 8.8.3): the version of a thing, and the condition that a write makes of it."""

import re
from typing import Annotated, TypeVar

from litestar import Response
from litestar.params import HeaderParameter

from latchkey.domain.artifact import Artifact
from latchkey.domain.errors import Malformed, StaleVersion
from latchkey.domain.task import Task
from latchkey.interfaces.http.answer import Answer

Versioned = TypeVar("Versioned", bound=Task | Artifact)

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="Do it only if this is still the entity tag of what is there.",
        schema_extra={"pattern": r'^(?:\*|(?:W/)?"[!#-~]*")$'},
    ),
]

_TAG = re.compile(r'(?P<weak>W/)?"(?P<text>[\x21\x23-\x7e\x80-\xff]*)"\Z')
_VERSION = re.compile(r"[1-9]\d{0,8}\Z")


def tagged(thing: Versioned, status_code: int = 200, **headers: str) -> Response[Versioned]:
    """The thing with its version as its entity tag."""
    return Answer(thing, status_code=status_code, headers={"etag": f'"{thing.version}"', **headers})


def version_in(if_match: str | None) -> int | None:
    """The version that `If-Match` asks for, or None if it asks for none, or for any.

    Raises `Malformed`, and `StaleVersion` for a tag that no version ever had.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _TAG.match(if_match.strip())
    if tag is None:
        raise Malformed('If-Match: send one entity tag as it was given, such as "3", or *.')
    if tag["weak"] or not _VERSION.match(tag["text"]):
        raise StaleVersion(f"No version has the entity tag {tag[0]}: read it again.")
    return int(tag["text"])
