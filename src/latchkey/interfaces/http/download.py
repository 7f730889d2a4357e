"""An artifact as a file (RFC 6266)."""

import re
import unicodedata
from urllib.parse import quote

from litestar import Response

from latchkey.domain.artifact import ArtifactWithContent

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
