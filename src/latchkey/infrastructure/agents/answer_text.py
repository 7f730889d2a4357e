"""What a model says to the person, piece by piece, as it is told and stored."""

import re
from collections.abc import Iterator

from latchkey.domain.agent import TextDelta
from latchkey.domain.errors import ModelBadResponse

MAX_ANSWER_CHARS = 1024 * 1024

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text as any database can hold it."""
    return _UNSTORABLE.sub("\ufffd", text)


class AnswerText:
    """The answer of one turn as it grows. What is said after a pause is a paragraph of its own."""

    def __init__(self) -> None:
        self._size = 0
        self._has_begun = False
        self._has_paused = False

    def pause(self) -> None:
        self._has_paused = True

    def say(self, text: str) -> Iterator[TextDelta]:
        """Raises `ModelBadResponse` once it is more than anybody reads."""
        if not text:
            return
        self._size += len(text)
        if self._size > MAX_ANSWER_CHARS:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_ANSWER_CHARS} characters.")
        if self._has_paused and self._has_begun:
            yield TextDelta("\n\n")
        self._has_begun, self._has_paused = True, False
        yield TextDelta(storable(text))
