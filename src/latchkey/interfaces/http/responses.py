"""What an operation answers: JSON, with nothing on the way to it that no operation has."""

import re
import unicodedata
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from latchkey.domain.artifact import Artifact, ArtifactWithContent
from latchkey.domain.errors import Malformed, StaleVersion
from latchkey.domain.task import Task

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")


class JsonResponse(Response[T]):
    """A response without cookies, serializers and background work, for which Litestar's own takes 8 us longer."""

    def to_asgi_response(self, *given: Any, **named: Any) -> ASGIResponse:
        if self.content is None:
            return super().to_asgi_response(*given, **named)
        return _Encoded(self.status_code or named["status_code"], self.headers, _encode(self.content))


class _Encoded(ASGIResponse):
    def __init__(self, status: int, named: dict[str, str], body: bytes) -> None:
        self._start = [_JSON, (b"content-length", b"%d" % len(body))]
        self._start += [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        self.status_code = status
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._start})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


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
    return JsonResponse(thing, status_code=status_code, headers={"etag": f'"{thing.version}"', **headers})


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


ETAG = ResponseHeader(name="ETag", documentation_only=True, description='The version, as an entity tag: `"3"`.')
LOCATION = ResponseHeader(name="Location", documentation_only=True, description="The path of what was made.")

DISPOSITION = ResponseHeader(
    name="Content-Disposition", documentation_only=True, description="`attachment`, with a file name (RFC 6266)."
)

REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
"""Every response has it, so it is described once."""


MARKDOWN = "text/markdown"

_LONGEST_NAME = 200
"""In bytes: file systems take 255."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]+')
_JOINERS = "\u200c\u200d"
"""Formatting too, but part of how words are spelled, in Persian and others."""
_NOT_IN_TOKEN = re.compile(r"[^A-Za-z0-9._-]+")


def download(artifact: ArtifactWithContent) -> Response[str]:
    """The content as an attachment, which no browser shows as a page of ours."""
    name = file_name(artifact.title)
    letters = [one for one in unicodedata.normalize("NFKD", name.removesuffix(".md")) if not unicodedata.combining(one)]
    plain = _NOT_IN_TOKEN.sub("-", "".join(letters)).strip("-.")
    names = f"filename=\"{plain or 'artifact'}.md\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(
        artifact.content_markdown,
        media_type=MARKDOWN,
        headers={
            "content-disposition": f"attachment; {names}",
            "etag": f'"{artifact.version}"',
        },
    )


def file_name(title: str) -> str:
    """The title as a file name on any system, in its own script, ending in `.md`.

    Without what separates paths or hides in a text (controls, and formatting such as right-to-left overrides).
    """
    visible = "".join(" " if _hides(letter) else letter for letter in title)
    name = " ".join(_UNSAFE.sub(" ", visible).split()).strip(". ").removesuffix(".md")
    short = name.encode()[:_LONGEST_NAME].decode(errors="ignore").rstrip(". ")
    return f"{short or 'artifact'}.md"


def _hides(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp"} and letter not in _JOINERS
