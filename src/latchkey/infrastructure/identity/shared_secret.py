"""Identity by a secret shared with the token issuer (HS256), and the signing key file of `serve --dev`."""

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from stat import S_IRWXG, S_IRWXO
from typing import BinaryIO

import jwt
from jwt.algorithms import HMACAlgorithm

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Invalid, NotFound
from latchkey.infrastructure.identity.jwt_verification import (
    ClaimRules,
    VerifiedTokenCache,
    read_key_id,
    verify_signature,
)

_HS256 = ("HS256",)
_KEY_BYTES = 32


class SharedSecret:
    """The `Identity` port, which can also sign tokens.

    Raises `Invalid` if the secret is a public key: everybody knows that, so everybody could sign.
    """

    def __init__(self, secret: bytes, issuer: str, audience: str, *, now: Callable[[], float] = time.time) -> None:
        try:
            self._secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except jwt.InvalidKeyError as error:
            raise Invalid("The shared secret must be random bytes, not the key of a key pair.") from error
        self._rules = ClaimRules(issuer, audience, now)
        self._verified_tokens = VerifiedTokenCache()

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        claims = self._verified_tokens.get(bearer)
        if claims is None:
            read_key_id(bearer, _HS256)
            payload = verify_signature(bearer, self._secret, _HS256)
            claims = self._verified_tokens.add(bearer, self._rules.parse(payload), payload)
        return self._rules.validate(claims, audience)

    def timezone_of(self, bearer: str) -> str | None:
        return self._verified_tokens.timezone_of(bearer)

    def claims_of(self, bearer: str) -> tuple[tuple[str, str], ...]:
        return self._verified_tokens.kept_claims(bearer)

    def keep_claims(self, names: frozenset[str]) -> None:
        self._verified_tokens.keep_claims(names)

    def sign(self, user_id: UserId, ttl: timedelta) -> str:
        """Return a token for this user that `authenticate` accepts for that time."""
        now = int(self._rules.now())
        claims = {
            "iss": self._rules.issuer,
            "aud": self._rules.audience,
            "sub": user_id,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
        }
        return jwt.encode(claims, self._secret, "HS256")


def load_signing_key(path: Path, *, create: bool) -> bytes:
    """Read the key from the file; `create` makes a file with a new key if there is none, or if it is empty.

    Concurrent processes get the same key. Raises `NotFound` if there is no key, and `Invalid` if the file cannot be
    opened, other accounts than the owner may access it, or the key is too short.
    """
    with _open_key_file(path, create=create) as file:
        descriptor = file.fileno()
        if os.fstat(descriptor).st_mode & (S_IRWXG | S_IRWXO):
            raise Invalid(
                f"Other accounts may access the signing key {path}: run `chmod 600 {path}`, or delete the file."
            )
        # The lock is held until the file is closed: a second process waits here, and then reads the key of the first.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        key = file.read() or (_write_new_key(file) if create else b"")
    if not key:
        raise NotFound(f"The signing key {path} is empty.")
    if len(key) < _KEY_BYTES:
        raise Invalid(
            f"The signing key {path} must be at least {_KEY_BYTES} bytes long: delete the file to get a new key."
        )
    return key


def _open_key_file(path: Path, *, create: bool) -> BinaryIO:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        if create:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(path, flags, 0o600), "r+b")
    except FileNotFoundError as error:
        raise NotFound(f"There is no signing key {path}.") from error
    except OSError as error:
        raise Invalid(f"The signing key {path} cannot be opened: {error.strerror}.") from error


def _write_new_key(file: BinaryIO) -> bytes:
    key = secrets.token_hex(_KEY_BYTES).encode()
    file.write(key)
    file.flush()
    os.fsync(file.fileno())
    return key
