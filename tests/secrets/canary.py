"""A secret to plant, and to look for afterwards in whatever form it might have got away."""

import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

_ALIGNMENTS = 3
"""Base64 writes the same text in three ways, by what stands before it."""
_SLACK = 2
"""Characters of base64 at each end that its neighbours have a share in."""


@dataclass(frozen=True)
class Canary:
    """A secret under the name by which a test speaks of it. `core` is a piece of it that is nowhere else."""

    name: str
    text: str
    core: str

    @classmethod
    def hatch(cls, name: str, like: str = "{}") -> "Canary":
        """A new one, of that shape."""
        core = secrets.token_hex(20)
        return cls(name, like.format(core), core)

    @classmethod
    def found(cls, name: str, text: str) -> "Canary":
        """One that somebody else has made, whose end is random."""
        return cls(name, text, text[-40:])

    @property
    def forms(self) -> dict[str, bytes]:
        """Half of it is enough to be caught by, so that one which was cut short is caught too."""
        piece = self.core[: len(self.core) // 2 + 4].encode()
        shifted = [b"\0" * shift + piece for shift in range(_ALIGNMENTS)]
        return {
            "as it is": piece,
            "in capitals": piece.upper(),
            "in hexadecimal": piece.hex().encode(),
            "in a URL": quote(self.text, safe="").encode(),
            "in JSON": json.dumps(self.text)[1:-1].encode(),
            **{f"in base64, {nth}": _inner(b64encode(text), nth) for nth, text in enumerate(shifted)},
            **{f"in URL-safe base64, {nth}": _inner(urlsafe_b64encode(text), nth) for nth, text in enumerate(shifted)},
        }


def _inner(encoded: bytes, shift: int) -> bytes:
    """What is the same whatever stands before and after it."""
    return encoded.rstrip(b"=")[shift + (shift > 0) : -_SLACK]


def sightings(canaries: Iterable[Canary], seen: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Which canary was seen where: by its name and the place's."""
    forms = [(canary.name, form) for canary in canaries for form in canary.forms.values()]
    return {(name, place) for place, text in seen.items() for name, form in forms if form in text}
