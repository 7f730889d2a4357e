"""Who a call is for and what it may do: grants, scopes, and the context tokens that carry them."""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import StrEnum
from typing import Annotated, NewType, Self
from uuid import UUID

from msgspec import Meta, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.turn import TurnId
from latchkey.domain.values import Instant

UserId = NewType("UserId", str)
ContextTokenId = NewType("ContextTokenId", UUID)

TOKEN_PREFIX = "lk_"
_RANDOM_BYTES = 32
_RANDOM_CHARS = 43
_USER_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~:@|-]{1,128}\Z")


def parse_user_id(text: str) -> UserId | None:
    """The text as a user id, or None: 1-128 of `A-Za-z0-9._~:@|-`, and not a path's `.` or `..`."""
    return UserId(text) if _USER_ID.match(text) else None


class Grant(StrEnum):
    """What a context token may open. The text is published."""

    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    ARTIFACTS_READ = "artifacts:read"
    ARTIFACTS_WRITE = "artifacts:write"
    CONVERSATIONS_READ = "conversations:read"


ALL_GRANTS = frozenset(Grant)


class Scope(Struct, frozen=True):
    """One user's door, as far as the credential opens it."""

    user_id: UserId
    grants: frozenset[Grant] = ALL_GRANTS
    token_id: ContextTokenId | None = None
    conversation_id: ConversationId | None = None
    turn_id: TurnId | None = None

    @property
    def is_owner(self) -> bool:
        """Whether the person is here in person, and not a token minted for them."""
        return self.token_id is None

    def includes(self, conversation_id: ConversationId | None) -> bool:
        """Whether what belongs to that conversation lies inside this scope."""
        return self.conversation_id is None or self.conversation_id == conversation_id


class ContextToken(Struct, frozen=True, kw_only=True):
    """A capability for one user, optionally one conversation and turn. Its secret is not in here."""

    id: ContextTokenId
    grants: list[Grant]
    conversation_id: ConversationId | None
    turn_id: TurnId | None
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None = None

    def scope_for(self, user_id: UserId) -> Scope:
        """What its holder may do, as long as it lives."""
        return Scope(user_id, frozenset(self.grants), self.id, self.conversation_id, self.turn_id)


class NewContextToken(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person asks of a token for somebody else: what it opens, and for how many seconds."""

    grants: Annotated[list[Grant], Meta(min_length=1, max_length=len(Grant))]
    conversation_id: ConversationId | None = None
    ttl_s: Annotated[int, Meta(ge=60, le=86_400)] = 3600


class Owner(Struct, frozen=True):
    """The credential of a person whose identity provider has vouched for them (the `sub` of a verified JWT)."""

    user_id: UserId


class TokenSecret(Struct, frozen=True):
    """The credential of a context token's holder: `lk_`, 256 random bits, and the user id in base64url.

    `user_id` is not verified: it only selects the rows in which the digest of the whole text is looked up.
    """

    text: str
    user_id: UserId

    @classmethod
    def mint(cls, user_id: UserId) -> Self:
        """Make a new random secret."""
        encoded_user = urlsafe_b64encode(user_id.encode()).rstrip(b"=").decode()
        return cls(TOKEN_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES) + encoded_user, user_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a secret as a client sends it. Raises `Unauthenticated` if the text is not of this form."""
        encoded_user = text[len(TOKEN_PREFIX) + _RANDOM_CHARS :]
        try:
            user_id = parse_user_id(urlsafe_b64decode(encoded_user + "=" * (-len(encoded_user) % 4)).decode("ascii"))
        except ValueError:
            user_id = None
        if user_id is None or not text.startswith(TOKEN_PREFIX):
            raise Unauthenticated("Malformed context token: it must be `lk_` followed by the token exactly as issued.")
        return cls(text, user_id)

    @property
    def digest(self) -> str:
        """What is stored: SHA-256 of the whole text, in hex. Enough, because the text is random."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def __repr__(self) -> str:
        return "TokenSecret(lk_…)"


Credential = Owner | TokenSecret
