"""What a caller must hold to run a use case, and how its unit of work is isolated."""

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from latchkey.domain.credentials import Grant, Scope
from latchkey.domain.errors import Forbidden
from latchkey.domain.ports import Isolation

UseCase = TypeVar("UseCase", bound=Callable[..., Any])

_ACCESS: dict[Callable[..., Any], "Access"] = {}


class Access(Struct, frozen=True):
    """`grant` is None where the person must be there in person: no context token opens it.

    What `stores` may be refused for want of room; what frees room, or ends what has begun, may not.
    """

    grant: Grant | None
    isolation: Isolation
    stores: bool = False

    def check(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the scope opens this."""
        if scope.is_owner or self.grant in scope.grants:
            return
        needed = f"a token with the grant {self.grant}" if self.grant else "the person's own sign-in"
        raise Forbidden(f"This needs {needed}.")


def needs(grant: Grant, *, stores: bool = False) -> Callable[[UseCase], UseCase]:
    """Anyone whose scope has the grant may run it."""
    return _declare(Access(grant, "read" if grant.endswith(":read") else "write", stores))


def owner_only(isolation: Isolation, *, stores: bool = False) -> Callable[[UseCase], UseCase]:
    """Only the person may run it."""
    return _declare(Access(None, isolation, stores))


def access_of(use_case: Callable[..., Any]) -> Access:
    """Raises `KeyError` for a function that never said what it needs."""
    return _ACCESS[use_case]


def _declare(access: Access) -> Callable[[UseCase], UseCase]:
    def declare(use_case: UseCase) -> UseCase:
        _ACCESS[use_case] = access
        return use_case

    return declare
