"""The text of an answer, as it is streamed to the client and stored."""

import re
from collections.abc import Iterator

from latchkey.domain.agent import TextDelta
from latchkey.domain.errors import ModelBadResponse

MAX_ANSWER_CHARS = 1024 * 1024

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store (NUL and lone surrogates) with U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


class AnswerText:
    """Turns the text of a model into deltas, and separates the paragraphs of one turn with a blank line."""

    def __init__(self) -> None:
        self._length = 0
        self._has_text = False
        self._needs_paragraph_break = False

    def begin_paragraph(self) -> None:
        """Put the next text into a paragraph of its own."""
        self._needs_paragraph_break = True

    def append(self, text: str) -> Iterator[TextDelta]:
        """Raises `ModelBadResponse` if the answer becomes longer than `MAX_ANSWER_CHARS`."""
        if not text:
            return
        self._length += len(text)
        if self._length > MAX_ANSWER_CHARS:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_ANSWER_CHARS} characters.")
        if self._needs_paragraph_break and self._has_text:
            yield TextDelta("\n\n")
        self._has_text, self._needs_paragraph_break = True, False
        yield TextDelta(storable(text))
