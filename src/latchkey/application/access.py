"""Permissions: what a credential must grant to run a use case, and in which transaction mode the use case runs."""

from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from msgspec import Struct

from latchkey.domain.credentials import Grant, Scope
from latchkey.domain.errors import Forbidden
from latchkey.domain.ports import TransactionMode

UseCase = TypeVar("UseCase", bound=Callable[..., Any])

_PERMISSION = "__latchkey_permission__"
"""The attribute of a use case that holds its permission; `functools.wraps` copies it to a decorated function."""

_ARTIFACT_CREATORS: set[str] = set()


class Permission(Struct, frozen=True):
    """The requirements of a use case.

    - `grant`: the grant that a context token needs; None means that only the user's own credential may run it.
    - `mode`: the transaction mode of its unit of work.
    - `stores`: it adds stored bytes, so it is refused once the user's storage quota is reached.
    - `creates_artifact`: it returns an `ArtifactReference`; a turn reports the artifact as its own.
    """

    grant: Grant | None
    mode: TransactionMode
    stores: bool = False
    creates_artifact: bool = False

    def check(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the scope satisfies this permission."""
        if scope.allows(self.grant):
            return
        needed = f"a token with the grant {self.grant}" if self.grant else "the user's own token"
        raise Forbidden(f"This operation requires {needed}.")


def requires(grant: Grant, *, stores: bool = False, creates_artifact: bool = False) -> Callable[[UseCase], UseCase]:
    """Declare that a credential with this grant may run the use case."""
    mode: TransactionMode = "read" if grant.endswith(":read") else "write"
    return _declare(Permission(grant, mode, stores, creates_artifact))


def owner_only(mode: TransactionMode, *, stores: bool = False) -> Callable[[UseCase], UseCase]:
    """Declare that only the user's own credential may run the use case."""
    return _declare(Permission(None, mode, stores))


def permission_of(use_case: Callable[..., Any]) -> Permission:
    """Return the declared permission, also of a `functools.partial` or a decorated function that uses `wraps`.

    Raises `TypeError` for a function that declares none.
    """
    permission = getattr(_function_of(use_case), _PERMISSION, None)
    if not isinstance(permission, Permission):
        raise TypeError(f"{use_case!r} declares no permission: decorate it with `requires` or `owner_only`.")
    return permission


def name_of(use_case: Callable[..., Any]) -> str:
    """Return the name of the use case, under which it is logged and offered as a tool."""
    name: str = _function_of(use_case).__name__
    return name


def creates_artifact(tool_name: str) -> bool:
    """Whether the result of the use case with this name is an `ArtifactReference`."""
    return tool_name in _ARTIFACT_CREATORS


def _function_of(use_case: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(use_case, partial):
        use_case = use_case.func
    return use_case


def _declare(permission: Permission) -> Callable[[UseCase], UseCase]:
    def declare(use_case: UseCase) -> UseCase:
        if not iscoroutinefunction(use_case):
            raise TypeError(f"{use_case!r} is not an `async def` function, so it cannot be a use case.")
        setattr(use_case, _PERMISSION, permission)
        if permission.creates_artifact:
            _ARTIFACT_CREATORS.add(use_case.__name__)
        return use_case

    return declare
