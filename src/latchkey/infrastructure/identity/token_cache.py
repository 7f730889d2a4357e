"""Tokens whose signature was found right a moment ago."""

from latchkey.infrastructure.identity.claims import Claims

_CAPACITY = 1_024


class VerifiedTokenCache:
    """The claims of the last tokens verified, by the exact text. It spares the signature, never the claims' rules."""

    def __init__(self) -> None:
        self._claims: dict[str, Claims] = {}

    def get(self, bearer: str) -> Claims | None:
        return self._claims.get(bearer)

    def add(self, bearer: str, claims: Claims) -> Claims:
        """Remember the claims in place of the oldest, and hand them back."""
        if len(self._claims) >= _CAPACITY:
            del self._claims[next(iter(self._claims))]
        self._claims[bearer] = claims
        return claims

    def clear(self) -> None:
        self._claims.clear()
