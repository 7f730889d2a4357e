"""An artifact as a Markdown file to download."""

import re
import unicodedata
from urllib.parse import quote

from litestar import Response
from litestar.datastructures import ResponseHeader

from latchkey.domain.artifact import ArtifactWithContent
from latchkey.interfaces.http.responses import etag_of

MARKDOWN = "text/markdown"
DISPOSITION = ResponseHeader(
    name="Content-Disposition", documentation_only=True, description="`attachment` with a file name (RFC 6266)."
)

_MAX_NAME_BYTES = 200
"""File systems allow 255."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]+')
_JOINERS = "\u200c\u200d"
"""Format characters that belong to the spelling of words, for example in Persian."""
_NOT_IN_TOKEN = re.compile(r"[^A-Za-z0-9._-]+")


def download(artifact: ArtifactWithContent) -> Response[str]:
    """Return the content as an attachment, so that no browser shows it as a page of this origin."""
    name = file_name(artifact.title)
    decomposed = unicodedata.normalize("NFKD", name.removesuffix(".md"))
    letters = [char for char in decomposed if not unicodedata.combining(char)]
    plain = _NOT_IN_TOKEN.sub("-", "".join(letters)).strip("-.")
    names = f"filename=\"{plain or 'artifact'}.md\"; filename*=UTF-8''{quote(name, safe='')}"
    headers = {"content-disposition": f"attachment; {names}", "etag": etag_of(artifact)}
    return Response(artifact.content_markdown, media_type=MARKDOWN, headers=headers)


def file_name(title: str) -> str:
    """Return the title as a file name that is valid on any system, in its own script, ending in `.md`.

    Path separators, control characters and invisible format characters (such as right-to-left overrides) are removed.
    """
    visible = "".join(" " if _is_invisible(char) else char for char in title)
    name = " ".join(_UNSAFE.sub(" ", visible).split()).strip(". ").removesuffix(".md")
    short = name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").rstrip(". ")
    return f"{short or 'artifact'}.md"


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} and char not in _JOINERS
