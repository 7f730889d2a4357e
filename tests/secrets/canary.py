"""Canaries: marked secrets that a test plants, and a search for them in every encoding."""

import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

_ALIGNMENTS = 3
"""Base64 encodes a text in three ways, depending on the number of bytes before it."""
_SLACK = 2
"""Base64 characters at each end that also encode bits of the neighbouring bytes."""


@dataclass(frozen=True)
class Canary:
    """A named secret. `core` is its unique part."""

    name: str
    text: str
    core: str

    @classmethod
    def create(cls, name: str, like: str = "{}") -> "Canary":
        """Create a secret of that shape."""
        core = secrets.token_hex(20)
        return cls(name, like.format(core), core)

    @classmethod
    def from_secret(cls, name: str, text: str) -> "Canary":
        """A canary for an existing secret whose end is random."""
        return cls(name, text, text[-40:])

    @property
    def forms(self) -> dict[str, bytes]:
        """The encodings to search for. Half of the core is enough, so that a truncated secret is found too."""
        piece = self.core[: len(self.core) // 2 + 4].encode()
        shifted = [b"\0" * shift + piece for shift in range(_ALIGNMENTS)]
        return {
            "plain": piece,
            "upper case": piece.upper(),
            "hexadecimal": piece.hex().encode(),
            "URL-encoded": quote(self.text, safe="").encode(),
            "JSON-encoded": json.dumps(self.text)[1:-1].encode(),
            **{f"base64, {nth}": _inner(b64encode(text), nth) for nth, text in enumerate(shifted)},
            **{f"URL-safe base64, {nth}": _inner(urlsafe_b64encode(text), nth) for nth, text in enumerate(shifted)},
        }


def _inner(encoded: bytes, shift: int) -> bytes:
    """The part of the encoding that does not depend on the neighbouring bytes."""
    return encoded.rstrip(b"=")[shift + (shift > 0) : -_SLACK]


def find_leaks(canaries: Iterable[Canary], output: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """The leaks as pairs of canary name and place."""
    forms = [(canary.name, form) for canary in canaries for form in canary.forms.values()]
    return {(name, place) for place, text in output.items() for name, form in forms if form in text}
