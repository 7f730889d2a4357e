"""How hard a secret is to guess, for those who know how people make them up."""

import re
from math import log2

ENOUGH_BITS = 90
"""32 random hexadecimal digits, which are 128 bits, hardly ever count for less; a sentence of 45 letters does."""

_ALPHABETS = ((r"[0-9]", 10), (r"[a-z]", 26), (r"[A-Z]", 26), (r"[!-/:-@\[-`{-~ ]", 33), (r"[^ -~]", 128))
_HEXADECIMAL = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_WORDS = re.compile(r"[A-Za-z]?[a-z ,._-]{4,}|[A-Z ,._-]{5,}")
_BITS_OF_A_LETTER = 2
"""In a text, at most. Shannon (1951) found 0.6 to 1.3 in English."""
_LEAST_AGAIN = 3


def bits_of(secret: bytes) -> float:
    """About how many bits somebody would have to guess; what is random counts in full.

    Said again, a piece counts as one choice; in words, a letter counts for little. To know words would need
    dictionaries, and still miss those of the next language.
    """
    text = secret.decode("latin-1")
    one = log2(_alphabet(text))
    bits, at = 0.0, 0
    while at < len(text):
        if again := _again(text, at):
            bits, at = bits + log2(len(text)), at + again
        elif words := _WORDS.match(text, at):
            bits, at = bits + _BITS_OF_A_LETTER * len(words[0]), words.end()
        else:
            bits, at = bits + one, at + 1
    return bits


def _alphabet(text: str) -> int:
    """How many characters there are to choose from, by those that were chosen."""
    if _HEXADECIMAL.fullmatch(text):
        return 16
    return sum(size for pattern, size in _ALPHABETS if re.search(pattern, text)) or 1


def _again(text: str, at: int) -> int:
    """How many characters from here on have been said before."""
    length = _LEAST_AGAIN
    while at + length <= len(text) and text.find(text[at : at + length], 0, at + length - 1) >= 0:
        length += 1
    return length - 1 if length > _LEAST_AGAIN else 0
