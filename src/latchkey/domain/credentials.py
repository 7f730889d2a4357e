"""Credentials, grants and scopes: for which user a call acts, and what it may do."""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Annotated, NewType, Self
from uuid import UUID

from msgspec import Meta, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Invalid, Unauthenticated
from latchkey.domain.turn import TurnId
from latchkey.domain.values import Instant

UserId = NewType("UserId", str)
ContextTokenId = NewType("ContextTokenId", UUID)

TOKEN_PREFIX = "lk_"
_RANDOM_BYTES = 32
_RANDOM_CHARS = 43
_NO_DOT = "A-Za-z0-9_~:@|+-"
USER_ID_PATTERN = rf"^(?:[{_NO_DOT}][.{_NO_DOT}]?|\.[{_NO_DOT}]|[.{_NO_DOT}]{{3,128}})$"
"""1 to 128 characters, not `.` or `..`, which clients resolve in paths. Has no look-ahead, because RE2 knows none."""
USER_ID_RULE = "1 to 128 characters of `A-Za-z0-9._~:@|+-`, and not `.` or `..`"
"""What the pattern means, for texts of errors."""
_USER_ID = re.compile(USER_ID_PATTERN)


def parse_user_id(text: str) -> UserId | None:
    """Return the text as a user id; None if it does not follow `USER_ID_RULE`."""
    return UserId(text) if _USER_ID.fullmatch(text) else None


Grant = NewType("Grant", str)
"""A permission that a context token can carry: `NOUN:read` or `NOUN:write`."""

TASKS_READ = Grant("tasks:read")
TASKS_WRITE = Grant("tasks:write")
ARTIFACTS_READ = Grant("artifacts:read")
ARTIFACTS_WRITE = Grant("artifacts:write")
CONVERSATIONS_READ = Grant("conversations:read")

BUILT_IN_GRANTS = (ARTIFACTS_READ, ARTIFACTS_WRITE, CONVERSATIONS_READ, TASKS_READ, TASKS_WRITE)

MAX_GRANTS = 100
"""How many grants can be registered, the built-in ones included."""

GRANT_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,30}:(?:read|write)")

PublishedGrant = Annotated[
    Grant,
    Meta(title="Grant", description="A permission that a context token can carry. The values are published."),
]


class RegisteredGrants(Struct, frozen=True):
    """The grants that exist in this service, sorted: the built-in ones and those of the app."""

    names: tuple[Grant, ...] = BUILT_IN_GRANTS

    def known(self, grants: list[Grant]) -> list[Grant]:
        """Return those that exist here: a later release, or another app, may have made a token with others."""
        return [grant for grant in grants if grant in self.names]

    def check(self, grants: list[Grant]) -> None:
        """Raises `Invalid` for a grant that is not registered, and for more grants than there are."""
        if len(grants) > len(self.names):
            raise Invalid.at("$.grants", f"Expected at most {len(self.names)} grants")
        for index, grant in enumerate(grants):
            if grant not in self.names:
                raise Invalid.at(f"$.grants[{index}]", f"Expected one of {', '.join(self.names)}")


class Scope(Struct, frozen=True):
    """What a credential gives access to: one user's data, limited to grants and optionally to a conversation.

    The user's own credential needs no grants: it allows everything.
    """

    user_id: UserId
    grants: frozenset[Grant] = frozenset()
    token_id: ContextTokenId | None = None
    conversation_id: ConversationId | None = None
    turn_id: TurnId | None = None
    tools: frozenset[str] | None = None
    """If set, the only use cases that the credential may run."""
    approve: frozenset[str] = frozenset()
    """The tools that the user is asked about before they run, in addition to those that declare it."""

    @property
    def is_owner(self) -> bool:
        """Whether the credential is the user's own, not a context token."""
        return self.token_id is None

    def allows(self, grant: Grant | None) -> bool:
        """Whether it carries this grant. None stands for what only the user's own credential allows."""
        return self.is_owner or grant in self.grants

    @property
    def caller(self) -> str:
        """The name of the credential, within which the ids of calls outside a turn are unique."""
        return "owner" if self.token_id is None else str(self.token_id)

    def may_run(self, use_case: str) -> bool:
        """Whether the credential is not limited to certain use cases, or this is one of them."""
        return self.tools is None or use_case in self.tools

    def includes(self, conversation_id: ConversationId | None) -> bool:
        """Whether the data of that conversation is inside this scope."""
        return self.conversation_id is None or self.conversation_id == conversation_id


class ContextToken(Struct, frozen=True, kw_only=True):
    """A context token, without its secret: it is for one user, and optionally for one conversation and turn."""

    id: ContextTokenId
    grants: list[PublishedGrant]
    conversation_id: ConversationId | None
    turn_id: TurnId | None
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None = None

    def scope_for(self, user_id: UserId, tools: Iterable[str] | None = None, approve: Iterable[str] = ()) -> Scope:
        """Return the scope that the token gives access to until it expires or is revoked.

        `tools` are the only use cases that it may run; None sets no such limit. Those of `approve` ask the user first.
        """
        limit = None if tools is None else frozenset(tools)
        grants, asking = frozenset(self.grants), frozenset(approve)
        return Scope(user_id, grants, self.id, self.conversation_id, self.turn_id, limit, asking)


class NewContextToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a context token with these grants, valid for `ttl_s` seconds."""

    grants: Annotated[list[PublishedGrant], Meta(min_length=1, max_length=MAX_GRANTS)]
    conversation_id: ConversationId | None = None
    ttl_s: Annotated[int, Meta(ge=60, le=86_400)] = 3600


class Owner(Struct, frozen=True):
    """The user's own credential: the `sub` of a verified JWT, and the time zone that the JWT names.

    `claims` are those further claims of the JWT that the instructions of an assistant name: names and JSON.
    """

    user_id: UserId
    timezone: str | None = None
    claims: tuple[tuple[str, str], ...] = ()


class Delegate(Owner, frozen=True, kw_only=True):
    """The user's own credential, limited to a scope: for a call that the user has approved in a turn.

    It exists within the process only.
    """

    scope: Scope


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
        """SHA-256 of the whole text, in hex: this is stored. A slow hash is not needed, because the text is random."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def __repr__(self) -> str:
        return "TokenSecret(lk_…)"


Credential = Owner | TokenSecret
