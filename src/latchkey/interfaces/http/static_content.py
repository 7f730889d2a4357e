"""Content that is the same for every request: compressed once, with an entity tag."""

import gzip
import re
from hashlib import sha256
from typing import Any, Self

from litestar import Request, Response
from litestar.enums import MediaType
from msgspec import Struct

from latchkey.interfaces.http.responses import is_current

_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[\d.]+\s*)?(?=,|$)", re.IGNORECASE)


class StaticContent(Struct, frozen=True):
    """Bytes, the same bytes compressed, and their entity tag without quotes."""

    media_type: str
    body: bytes
    compressed: bytes
    tag: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> Self:
        """Compress the content, and make its entity tag, which is a digest of its bytes."""
        return cls(media_type, body, gzip.compress(body, mtime=0), sha256(body).hexdigest()[:32])

    def response_to(self, request: Request[Any, Any, Any], if_none_match: str | None) -> Response[Any]:
        """Return the content, compressed if the client accepts that, or 304 if the client has it."""
        is_compressed = _GZIP.search(request.headers.get("accept-encoding", "")) is not None
        etag = f'"{self.tag}-gzip"' if is_compressed else f'"{self.tag}"'
        response = Response(self.compressed if is_compressed else self.body, media_type=self.media_type)
        if is_current(if_none_match, etag):
            response = Response(b"", status_code=304, media_type=MediaType.TEXT)
        elif is_compressed:
            response.headers["content-encoding"] = "gzip"
        response.headers |= {"etag": etag, "vary": "Accept-Encoding"}
        return response
